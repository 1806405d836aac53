// What the tests share: clients of the broker that the environment names, topics, and streams that
// are read frame by frame.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  Client,
  type Consumer,
  type ConsumerEvent,
  type Message as Received,
  TrunklineError,
} from "trunkline";
import { type ErrorInfo, ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import {
  ConsumerService,
  type ConsumeRequestSchema,
  type ConsumeResponse,
} from "../gen/trunkline/v1/consumer_pb.js";
import type { Message } from "../gen/trunkline/v1/message_pb.js";
import { ProducerService } from "../gen/trunkline/v1/producer_pb.js";
import { TopicService } from "../gen/trunkline/v1/topic_pb.js";

/** The limits of each test: a test that hangs fails, and its signal is aborted. */
export const limits = { timeout: 30_000 };

/** A transport that gives every call a deadline. */
export function connect(target: string) {
  return createGrpcTransport({ baseUrl: `http://${target}`, defaultTimeoutMs: 10_000 });
}

export const transport = connect(process.env.TRUNKLINE_TARGET ?? "");
export const topics = createClient(TopicService, transport);
export const producers = createClient(ProducerService, transport);
export const consumers = createClient(ConsumerService, transport);

/** The package's client of that broker. */
export const client = new Client(process.env.TRUNKLINE_TARGET ?? "");

/** A topic name that no other test uses. */
export function newName(): string {
  return `typescript-${randomUUID()}`;
}

/** A topic with the producer `shop` and the consumer `billing`. */
export async function makeTopic(): Promise<string> {
  const topic = newName();
  await topics.createTopic({ topic });
  await producers.registerProducer({ topic, producerId: "shop" });
  await consumers.registerConsumer({ topic, consumerId: "billing" });
  return topic;
}

export function publish(topic: string, payloads: Iterable<string | Uint8Array>) {
  const messages = Array.from(payloads, (payload) => ({ payload: Buffer.from(payload) }));
  return producers.publish({ topic, producerId: "shop", messages });
}

type Event = ConsumeResponse["event"];
type Kind = NonNullable<Event["case"]>;
type Frame<K extends Kind> = Extract<Event, { case: K }>["value"];

/** A stream of `billing`, cancelled when it is disposed of. */
export class Stream {
  readonly #cancelled = new AbortController();
  readonly #frames: AsyncIterator<ConsumeResponse>;

  constructor(topic: string, options: MessageInitShape<typeof ConsumeRequestSchema> = {}) {
    const request = { topic, consumerId: "billing", ...options };
    const signal = this.#cancelled.signal;
    this.#frames = consumers.consume(request, { signal })[Symbol.asyncIterator]();
  }

  /** The next frame; undefined when the stream has ended OK. */
  async next(): Promise<Event | undefined> {
    const { done, value } = await this.#frames.next();
    return done ? undefined : value.event;
  }

  /** The next frame of a kind; skips those of other kinds. */
  async nextOf<K extends Kind>(kind: K): Promise<Frame<K>> {
    for (let event = await this.next(); event; event = await this.next()) {
      if (event.case === kind) return event.value as Frame<K>;
    }
    throw new Error(`the stream ended before a frame of kind ${kind}`);
  }

  /** The messages of the next batch frames, until there are at least that many. */
  async take(count: number): Promise<Message[]> {
    const messages: Message[] = [];
    while (messages.length < count) messages.push(...(await this.nextOf("batch")).messages);
    return messages;
  }

  /** All frames until the stream ends. */
  async rest(): Promise<Event[]> {
    const events: Event[] = [];
    for (let event = await this.next(); event; event = await this.next()) events.push(event);
    return events;
  }

  cancel(): void {
    this.#cancelled.abort();
  }

  [Symbol.dispose](): void {
    this.cancel();
  }
}

/** All frames up to the end of the log. */
export async function readAll(topic: string): Promise<Event[]> {
  using stream = new Stream(topic, { stop: { case: "untilCaughtUp", value: true } });
  return await stream.rest();
}

export function messagesOf(events: Event[]): Message[] {
  return events.flatMap((event) => (event.case === "batch" ? event.value.messages : []));
}

/** The error that a call is refused with, which must have this code. */
export async function refusal(call: Promise<unknown>, code: Code): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail("the call was not refused"),
    (reason: unknown) => ConnectError.from(reason),
  );
  assert.equal(error.code, code, error.message);
  return error;
}

export function infoOf(error: ConnectError): ErrorInfo {
  const [info] = error.findDetails(ErrorInfoSchema);
  assert(info, `${error.message} has an ErrorInfo`);
  return info;
}

/** The error of the package that a promise is rejected with. */
export async function failure(promise: Promise<unknown>): Promise<TrunklineError> {
  const error = await promise.then(
    () => assert.fail("it did not fail"),
    (reason: unknown) => reason,
  );
  assert(error instanceof TrunklineError, `${error} is an error of the package`);
  return error;
}

/** The next messages of a consumer. */
export async function take(consumer: Consumer, count: number): Promise<Received[]> {
  const messages: Received[] = [];
  while (messages.length < count) {
    const { done, value } = await consumer.next();
    assert(!done, `the consumer ended after ${messages.length} messages`);
    messages.push(value);
  }
  return messages;
}

/** All messages of a consumer until it ends. */
export async function drain(consumer: Consumer): Promise<Received[]> {
  const messages: Received[] = [];
  for await (const message of consumer) messages.push(message);
  return messages;
}

/** Promises of events, by their type: each is fulfilled with the first one. */
export function firstEvents() {
  const seen = new EventEmitter();
  return {
    onEvent: (event: ConsumerEvent) => void seen.emit(event.type, event),
    async first<T extends ConsumerEvent["type"]>(
      type: T,
    ): Promise<Extract<ConsumerEvent, { type: T }>> {
      const [event] = await once(seen, type);
      return event;
    },
  };
}

/** The whole numbers from the start to before the end. */
export function range(start: number, end: number, step = 1): number[] {
  return Array.from({ length: Math.ceil((end - start) / step) }, (_, n) => start + n * step);
}
