// A long-lived consumer: it commits what it has handled, and resumes after a break.
//
//     npx tsx examples/consume.ts TOPIC CONSUMER

import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CommitMode, ConsumerService } from "../gen/trunkline/v1/consumer_pb.js";
import type { Message } from "../gen/trunkline/v1/message_pb.js";
import { Progress } from "./progress.ts";
import { mayRetry, pauseBeforeRetryMs, retryDelay } from "./retry.ts";

/** Yields a topic's messages in order, each once, until the signal is aborted.
 *
 * A message counts as handled when the caller asks for the next one. The position is committed
 * after each batch. If the process dies, the next one starts again at the committed position. */
export async function* consume(
  transport: Transport,
  topic: string,
  consumerId: string,
  signal: AbortSignal,
): AsyncGenerator<Message, void, void> {
  const consumers = createClient(ConsumerService, transport);
  const progress = new Progress();
  let failures = 0;
  while (!signal.aborted) {
    const left = new AbortController();
    try {
      const stream = consumers.consume(
        { topic, consumerId, commitMode: CommitMode.MANUAL },
        { signal: AbortSignal.any([signal, left.signal]) },
      );
      for await (const frame of stream) {
        failures = 0;
        yield* progress.take(frame);
        if (frame.event.case === "batch") {
          await commit(transport, topic, consumerId, progress);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!mayRetry(error)) throw error;
      const pause = pauseBeforeRetryMs(failures, retryDelay(error));
      console.warn(`${error.message}; trying again in ${Math.ceil(pause)} ms`);
      await setTimeout(pause, undefined, { signal }).catch(() => {});
      failures += 1;
    } finally {
      // If the caller stops early, the stream would go on and keep the lease.
      left.abort();
    }
  }
}

async function commit(
  transport: Transport,
  topic: string,
  consumerId: string,
  { epoch, nextOffset }: Progress,
): Promise<void> {
  const consumers = createClient(ConsumerService, transport);
  try {
    const request = { topic, consumerId, epoch, position: nextOffset };
    await consumers.commit(request, { timeoutMs: 10_000 });
  } catch (error) {
    // The lease is lost, or the position was moved by a seek: the stream says which.
    if (mayRetry(error) || ConnectError.from(error).code !== Code.Aborted) throw error;
  }
}

async function main([topic = "", consumerId = ""]: string[]): Promise<void> {
  const baseUrl = `http://${process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051"}`;
  // Pings notice that a broker has vanished silently, even while the stream is idle.
  const transport = createGrpcTransport({ baseUrl, pingIntervalMs: 30_000 });
  const interrupted = new AbortController();
  process.once("SIGINT", () => interrupted.abort());
  const messages = consume(transport, topic, consumerId, interrupted.signal);
  for await (const { offset, payload } of messages) {
    console.log(`${offset} ${Buffer.from(payload).toString()}`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await main(process.argv.slice(2));
}
