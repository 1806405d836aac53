// Prints the messages of a topic as they come, and goes on after a break. What is printed is committed.
//
//     npx tsx examples/consume.ts TOPIC CONSUMER

import { Client, type ConsumerEvent } from "trunkline";

const [topic = "", consumerId = ""] = process.argv.slice(2);
const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");
const consumer = await client.consumer(topic, consumerId, { onEvent: report });
process.once("SIGINT", () => consumer.close());

for await (const message of consumer) {
  console.log(`${message.offset} ${message.text()}`);
}

function report(event: ConsumerEvent): void {
  switch (event.type) {
    case "standby":
      return console.warn(`${event.holder} reads; waiting`);
    case "gap":
      return console.warn(`messages ${event.firstOffset} to ${event.endOffset - 1n} were removed`);
    case "broken":
      return console.warn(`${event.error.message}; trying again in ${Math.ceil(event.pauseMs)} ms`);
  }
}
