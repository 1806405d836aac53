// Works on the messages of a subscription, with the stubs, until there are no more.
//
//     npx tsx examples/work.ts TOPIC SUBSCRIPTION

import { PassThrough } from "node:stream";
import { Client } from "trunkline";

const [topic = "", subscriptionId = ""] = process.argv.slice(2);
const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");
await client.subscriptions.createSubscription({ topic, subscriptionId, ifMissing: true });

const requests = new PassThrough({ objectMode: true });
requests.write({ request: { case: "open", value: { topic, subscriptionId } } });
for await (const { event } of client.subscriptions.subscribe(requests, { timeoutMs: 0 })) {
  if (event.case === "deliveries" && requests.writable) {
    for (const { delivery, batch, attempts } of event.value.deliveries) {
      for (const [n, { offset, payload }] of batch?.messages.entries() ?? []) {
        const verdict = handle(offset, payload, attempts[n]);
        const settlements = [{ delivery, offsets: [offset], verdict }];
        requests.write({ request: { case: "settle", value: { settlements } } });
      }
    }
  }
  // Closes this side: what was settled is stored, and the stream ends. Without this, it waits for
  // new messages for ever.
  if (event.case === "caughtUp") requests.end();
}
client.close();

/** Says what becomes of a message: `retry` would have it delivered again. */
function handle(offset: bigint, payload: Uint8Array, attempt: number | undefined) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(payload);
    console.log(`${offset} ${text} (attempt ${attempt})`);
  } catch {
    return { case: "reject", value: { reason: "the payload is not text" } };
  }
  return { case: "acknowledge", value: {} };
}
