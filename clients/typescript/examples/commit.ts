// Commits by hand: a message is committed when it is handled, and comes again if that fails.
//
//     npx tsx examples/commit.ts TOPIC CONSUMER

import { Client, TrunklineError } from "trunkline";

const [topic = "", consumerId = ""] = process.argv.slice(2);
const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");

try {
  await using consumer = await client.consumer(topic, consumerId, {
    commit: "manual",
    untilCaughtUp: true,
  });
  for await (const message of consumer) {
    console.log(`handling ${message.text()}, published ${message.publishTime.toISOString()}`);
    await consumer.commit(message);
  }
} catch (error) {
  if (!(error instanceof TrunklineError)) throw error;
  console.error(`${error.reason}: ${error.message}`, error.metadata);
  process.exitCode = 1;
}
