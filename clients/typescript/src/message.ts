// Messages, as a producer publishes them and as a consumer receives them.

import { create } from "@bufbuild/protobuf";
import * as v1 from "../gen/trunkline/v1/message_pb.js";
import { TrunklineError } from "./error.js";

const MAX_BYTES = 1024 * 1024;
const MAX_HEADERS = 64;
const MAX_HEADERS_BYTES = 16 * 1024;
const MAX_HEADER_NAME_BYTES = 255;

/** A message to publish; text stands for its UTF-8. A payload alone may be given as it is. */
export type Outgoing = string | Uint8Array | OutgoingParts;

export interface OutgoingParts {
  payload?: string | Uint8Array;
  /** What the message is about. */
  key?: string | Uint8Array;
  headers?: Record<string, string>;
}

/** A message as a consumer receives it. */
export class Message {
  /** The number of the message in its topic: 0, 1, 2 and so on. */
  readonly offset: bigint;
  readonly payload: Uint8Array;
  /** What the message is about; undefined if its producer gave no key. */
  readonly key: Uint8Array | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** When the message was stored, by the database's clock. */
  readonly publishTime: Date;
  readonly producerId: string;
  /** The epoch in which the consumer received the message. The SQL function `trunkline.commit_position`
   * takes it. It refuses an epoch that has ended, as another consumer may have handled the message by
   * then. Only for a consumer with commits by hand. */
  readonly epoch: bigint;
  readonly #seeks: number;

  /** @internal */
  constructor(stored: v1.Message, epoch: bigint, seeks: number) {
    this.offset = stored.offset;
    this.payload = stored.payload;
    this.key = stored.key;
    this.headers = stored.headers;
    const { seconds, nanos } = stored.publishTime ?? { seconds: 0n, nanos: 0 };
    // Never later than the message, so that a consumer can start there.
    this.publishTime = new Date(Number(seconds) * 1_000 + Math.floor(nanos / 1_000_000));
    this.producerId = stored.producerId;
    this.epoch = epoch;
    this.#seeks = seeks;
  }

  /** @internal How many seeks its consumer had seen before it. */
  static seeksBefore(message: Message): number {
    return message.#seeks;
  }

  /** The payload as text. */
  text(): string {
    const { buffer, byteOffset, length } = this.payload;
    return Buffer.from(buffer, byteOffset, length).toString();
  }
}

/** Checks a message against the limits of the broker, which would refuse the whole request. Copies it,
 * so that its bytes may be reused. */
export function newMessage(outgoing: Outgoing): v1.NewMessage {
  // A program without types may have nothing where it expects a message.
  if (outgoing === null || outgoing === undefined)
    throw TrunklineError.invalid("message", `is ${outgoing}`);
  const isParts = typeof outgoing === "object" && !(outgoing instanceof Uint8Array);
  const { payload = "", key, headers }: OutgoingParts = isParts ? outgoing : {};
  const message = create(v1.NewMessageSchema);
  message.payload = copied("payload", isParts ? payload : outgoing);
  if (key !== undefined) message.key = copied("key", key);
  if (headers !== undefined) message.headers = checkedHeaders(headers);
  limit("message", sizeOf(message), MAX_BYTES, "bytes");
  return message;
}

/** The bytes of payload, key and headers. */
export function sizeOf({ payload, key, headers }: v1.NewMessage): number {
  let size = payload.length + (key?.length ?? 0);
  for (const name in headers) size += Buffer.byteLength(name + headers[name]);
  return size;
}

function copied(field: string, value: unknown): Uint8Array {
  if (typeof value === "string") return Buffer.from(value);
  if (value instanceof Uint8Array) return Buffer.from(value);
  throw TrunklineError.invalid(field, "must be a string or a Uint8Array");
}

function checkedHeaders(headers: Record<string, string>): Record<string, string> {
  if (typeof headers !== "object" || headers === null)
    throw TrunklineError.invalid("headers", "must be an object of strings");
  const entries = Object.entries(headers);
  limit("headers", entries.length, MAX_HEADERS, "entries");
  let size = 0;
  for (const [name, value] of entries) {
    if (typeof value !== "string")
      throw TrunklineError.invalid("headers", `${name} is not a string`);
    if (name === "") throw TrunklineError.invalid("headers", "hold an empty name");
    if (`${name}${value}`.includes("\0"))
      throw TrunklineError.invalid("headers", "hold a NUL character");
    limit("headers", Buffer.byteLength(name), MAX_HEADER_NAME_BYTES, "bytes of a name");
    size += Buffer.byteLength(name + value);
  }
  limit("headers", size, MAX_HEADERS_BYTES, "bytes");
  return Object.fromEntries(entries);
}

function limit(field: string, actual: number, most: number, unit: string): void {
  if (actual <= most) return;
  throw TrunklineError.invalid(field, `of ${actual} ${unit} is over the limit of ${most}`, most);
}
