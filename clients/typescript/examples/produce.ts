// A producer that stores each line of its input once, even if the broker goes away meanwhile.
//
//     npx tsx examples/produce.ts TOPIC PRODUCER < FILE

import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { create } from "@bufbuild/protobuf";
import { ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import {
  ProducerService,
  type PublishReceipt,
  type PublishRefusal,
  type PublishStreamRequest,
  PublishStreamRequestSchema,
} from "../gen/trunkline/v1/producer_pb.js";
import { mayRetry, pauseBeforeRetryMs, retryDelay } from "./retry.ts";

/** The most lines in a batch. A request may hold 10,000 messages. */
const BATCH_LINES = 1_000;

/** Publishes each batch as one request of a stream, and yields the receipts in order.
 *
 * A request does not wait for the receipts of earlier ones. After a break, a new stream starts at
 * the first request that was not answered. Each request keeps its sequence, so the broker stores it
 * once. */
export async function* publish(
  transport: Transport,
  topic: string,
  producerId: string,
  batches: AsyncIterable<string[]>,
): AsyncGenerator<PublishReceipt, void, void> {
  const producers = createClient(ProducerService, transport);
  const { producer } = await producers.getProducer({ topic, producerId }, { timeoutMs: 10_000 });
  const outbox = new Outbox(topic, producerId, (producer?.lastSequence ?? -1n) + 1n, batches);
  let failures = 0;
  for (;;) {
    const left = new AbortController();
    try {
      const answers = producers.publishStream(outbox.requests(), { signal: left.signal });
      for await (const { result } of answers) {
        // Requests after a refused one are refused too, as they leave a gap in the sequence.
        if (result.case === "refusal") throw asError(result.value);
        if (result.case !== "receipt") continue;
        failures = 0;
        outbox.forgetFirst();
        yield result.value;
      }
      return;
    } catch (error) {
      if (!mayRetry(error)) throw error;
      const pause = pauseBeforeRetryMs(failures, retryDelay(error));
      console.warn(`${error.message}; trying again in ${Math.ceil(pause)} ms`);
      await setTimeout(pause);
      failures += 1;
    } finally {
      left.abort();
    }
  }
}

/** The error that the unary Publish would have ended with. */
function asError({ code, reason, message, metadata, retryDelay }: PublishRefusal): ConnectError {
  return new ConnectError(message, code, undefined, [
    { desc: ErrorInfoSchema, value: { domain: "trunkline", reason, metadata } },
    ...(retryDelay ? [{ desc: RetryInfoSchema, value: { retryDelay } }] : []),
  ]);
}

/** Numbers the batches, and keeps the requests until they are answered. */
class Outbox {
  readonly #topic: string;
  readonly #producerId: string;
  readonly #batches: AsyncIterator<string[]>;
  readonly #unanswered: PublishStreamRequest[] = [];
  #sequence: bigint;
  #reading: Promise<boolean> | undefined;

  constructor(
    topic: string,
    producerId: string,
    sequence: bigint,
    batches: AsyncIterable<string[]>,
  ) {
    this.#topic = topic;
    this.#producerId = producerId;
    this.#sequence = sequence;
    this.#batches = batches[Symbol.asyncIterator]();
  }

  /** The requests of a new stream: first the unanswered ones, then new ones. */
  async *requests(): AsyncGenerator<PublishStreamRequest, void, void> {
    let next = this.#unanswered[0]?.sequence ?? this.#sequence;
    for (;;) {
      const request = this.#unanswered.find(({ sequence }) => sequence === next);
      if (request) {
        yield request;
        next += BigInt(request.messages.length);
      } else if (!(await this.#read())) {
        return;
      }
    }
  }

  /** Drops the oldest request, which was answered. */
  forgetFirst(): void {
    this.#unanswered.shift();
  }

  /** Reads one more batch; false at the end. If a broken stream is still waiting for a batch, the
   * new stream shares its read. */
  #read(): Promise<boolean> {
    this.#reading ??= this.#readOne().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readOne(): Promise<boolean> {
    const { done, value: lines } = await this.#batches.next();
    if (done) return false;
    const request = create(PublishStreamRequestSchema, {
      topic: this.#topic,
      producerId: this.#producerId,
      messages: lines.map((line) => ({ payload: Buffer.from(line) })),
      sequence: this.#sequence,
    });
    this.#sequence += BigInt(lines.length);
    this.#unanswered.push(request);
    return true;
  }
}

/** Yields the lines that can be read at once as a batch, so a typed line does not wait. */
async function* linesAsTheyCome(input: NodeJS.ReadStream): AsyncGenerator<string[], void, void> {
  let rest = "";
  for await (const text of input.setEncoding("utf8")) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    while (lines.length > 0) yield lines.splice(0, BATCH_LINES);
  }
  if (rest) yield [rest];
}

async function main([topic = "", producerId = ""]: string[]): Promise<void> {
  const baseUrl = `http://${process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051"}`;
  const transport = createGrpcTransport({ baseUrl, pingIntervalMs: 30_000 });
  const lines = linesAsTheyCome(process.stdin);
  for await (const { count, firstOffset } of publish(transport, topic, producerId, lines)) {
    console.log(`${count} stored from offset ${firstOffset} on`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main(process.argv.slice(2));
}
