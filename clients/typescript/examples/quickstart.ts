// Publishes a message and prints every message that the consumer has not received yet.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ConsumerService } from "../gen/trunkline/v1/consumer_pb.js";
import { ProducerService } from "../gen/trunkline/v1/producer_pb.js";
import { TopicService } from "../gen/trunkline/v1/topic_pb.js";

const baseUrl = `http://${process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051"}`;
const transport = createGrpcTransport({ baseUrl, defaultTimeoutMs: 10_000 });
const topics = createClient(TopicService, transport);
const producers = createClient(ProducerService, transport);
const consumers = createClient(ConsumerService, transport);

await ensure(topics.createTopic({ topic: "orders" }));
await ensure(producers.registerProducer({ topic: "orders", producerId: "shop" }));
await ensure(consumers.registerConsumer({ topic: "orders", consumerId: "billing" }));

const coffee = { key: Buffer.from("table 7"), payload: Buffer.from("one coffee") };
await producers.publish({ topic: "orders", producerId: "shop", messages: [coffee] });

const stop = { case: "untilCaughtUp", value: true } as const;
for await (const { event } of consumers.consume({ topic: "orders", consumerId: "billing", stop })) {
  if (event.case !== "batch") continue;
  for (const { offset, payload } of event.value.messages) {
    console.log(`${offset} ${Buffer.from(payload).toString()}`);
  }
}

async function ensure(made: Promise<unknown>): Promise<void> {
  await made.catch((error: unknown) => {
    if (ConnectError.from(error).code !== Code.AlreadyExists) throw error;
  });
}
