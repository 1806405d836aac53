// Stores each line of its input once, even if the broker goes away meanwhile.
//
//     npx tsx examples/produce.ts TOPIC PRODUCER < FILE

import { createInterface } from "node:readline";
import { Client, type Receipt } from "trunkline";

const [topic = "", producerId = ""] = process.argv.slice(2);
const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");
const producer = await client.producer(topic, producerId, {
  onBreak: ({ message }, pauseMs) =>
    console.warn(`${message}; trying again in ${Math.ceil(pauseMs)} ms`),
});

let first: Receipt | undefined;
let count = 0;
for await (const line of createInterface(process.stdin)) {
  const receipt = producer.publish(line);
  // Waits until there is room, not until the line is stored.
  await receipt.accepted;
  first ??= receipt;
  count += 1;
}
await producer.close();
if (first) console.log(`${count} stored from offset ${await first} on`);
