// Publishes a message and prints every message that the consumer has not received yet.

import { Client } from "trunkline";

const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");
await client.ensureTopic("orders");

const producer = await client.producer("orders", "shop");
await producer.publish({ key: "table 7", payload: "one coffee" });
await producer.close();

const consumer = await client.consumer("orders", "billing", { untilCaughtUp: true });
for await (const message of consumer) console.log(`${message.offset} ${message.text()}`);
