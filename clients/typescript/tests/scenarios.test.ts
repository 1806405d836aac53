// The scenarios of SCENARIOS.md about topics, producers and consumers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampDate, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { Client, type Message as Received } from "trunkline";
import { BadRequestSchema } from "../gen/google/rpc/error_details_pb.js";
import { CommitMode, OnBusy } from "../gen/trunkline/v1/consumer_pb.js";
import { LogEdge, type Message, NewMessageSchema } from "../gen/trunkline/v1/message_pb.js";
import { Broker } from "./broker.ts";
import {
  consumers,
  infoOf,
  limits,
  makeTopic,
  messagesOf,
  newName,
  producers,
  publish,
  range,
  readAll,
  refusal,
  Stream,
  topics,
} from "./shared.ts";

test("register", limits, async () => {
  const topic = newName();
  const created = await topics.createTopic({ topic });
  assert.equal(created.topic?.name, topic);
  assert.equal(created.topic.head, 0n);

  const shop = { topic, producerId: "shop" };
  await producers.registerProducer(shop);
  await consumers.registerConsumer({ topic, consumerId: "billing" });
  const listed = await producers.listProducers({ topic });
  assert.deepEqual(
    listed.producers.map(({ producerId }) => producerId),
    ["shop"],
  );
  const found = await consumers.listConsumers({ topic });
  assert.deepEqual(
    found.consumers.map(({ consumerId }) => consumerId),
    ["billing"],
  );

  await refusal(producers.registerProducer(shop), Code.AlreadyExists);
  const ifMissing = true;
  const topicAgain = await topics.createTopic({ topic, ifMissing });
  assert(topicAgain.existed);
  assert.deepEqual(topicAgain.topic, created.topic);
  const shopAgain = await producers.registerProducer({ ...shop, ifMissing });
  assert(shopAgain.existed);
  assert.deepEqual(shopAgain.producer, listed.producers[0]);
  const billing = {
    topic,
    consumerId: "billing",
    start: { case: "edge", value: LogEdge.LATEST },
  } as const;
  const billingAgain = await consumers.registerConsumer({ ...billing, ifMissing });
  assert(billingAgain.existed);
  assert.deepEqual(billingAgain.consumer, found.consumers[0]);
  const another = await consumers.registerConsumer({ ...billing, consumerId: "audit", ifMissing });
  assert(!another.existed);
  await refusal(topics.getTopic({ topic: `${topic}-missing` }), Code.NotFound);
  const nameless = await producers.registerProducer({ topic });
  assert(nameless.producer?.producerId);
});

test("keys-headers-and-unicode", limits, async () => {
  const topic = await makeTopic();
  const sent = [
    {
      payload: Buffer.from("grüße, 世界, 🚂"),
      key: Buffer.from("schlüssel"),
      headers: { kind: "greeting", größe: "🚂" },
    },
    { payload: Uint8Array.of(0xff, 0x00, 0xfe) },
    { payload: Buffer.from("with an empty key"), key: new Uint8Array() },
    {},
  ].map((message) => create(NewMessageSchema, message));
  await producers.publish({ topic, producerId: "shop", messages: sent });

  const got = messagesOf(await readAll(topic));

  assert.equal(got.length, sent.length);
  for (const [n, { payload, key, headers, publishTime, producerId }] of got.entries()) {
    const expected = sent[n] ?? assert.fail();
    assert.deepEqual(Buffer.from(payload), Buffer.from(expected.payload));
    assert.deepEqual(key && Buffer.from(key), expected.key && Buffer.from(expected.key));
    assert.deepEqual(headers, expected.headers);
    assert.equal(producerId, "shop");
    assert(publishTime && timestampDate(publishTime).getFullYear() > 2000);
  }
  const times = got.map(({ publishTime }) => (publishTime ? timestampMs(publishTime) : 0));
  assert.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  );
});

test("ordered-consume", limits, async () => {
  const topic = await makeTopic();
  for (const first of range(0, 1_000, 100)) {
    await publish(topic, range(first, first + 100).map(String));
  }

  const events = await readAll(topic);

  assert.equal(events.at(0)?.case, "attached");
  assert.equal(events.at(-1)?.case, "caughtUp");
  const got = messagesOf(events);
  assert.deepEqual(
    got.map(({ offset }) => offset),
    range(0, 1_000).map(BigInt),
  );
  assert.deepEqual(got.map(text), range(0, 1_000).map(String));
  const { consumer } = await consumers.getConsumer({ topic, consumerId: "billing" });
  assert.equal(consumer?.position, 1_000n);
  assert.equal(consumer.lag, 0n);
});

test("manual-commit-and-resume", limits, async () => {
  const topic = await makeTopic();
  const commitMode = CommitMode.MANUAL;
  await publish(topic, range(0, 10).map(String));

  using stream = new Stream(topic, { commitMode });
  const { epoch } = await stream.nextOf("attached");
  assert.deepEqual(
    (await stream.take(10)).map(({ offset }) => offset),
    range(0, 10).map(BigInt),
  );
  const commit = { topic, consumerId: "billing", epoch };
  assert.equal((await consumers.commit({ ...commit, position: 4n })).position, 4n);
  stream.cancel();

  using resumed = new Stream(topic, { commitMode });
  assert.equal((await resumed.nextOf("attached")).position, 4n);
  const [fifth] = await resumed.take(1);
  assert.equal(fifth?.offset, 4n);

  const late = await refusal(consumers.commit({ ...commit, position: 5n }), Code.Aborted);
  assert.equal(infoOf(late).reason, "LEASE_LOST");
});

test("standby-and-take-over", limits, async () => {
  const topic = await makeTopic();
  using holder = new Stream(topic, { clientName: "first" });
  assert.equal((await holder.next())?.case, "attached");

  using standby = new Stream(topic, { clientName: "second", onBusy: OnBusy.WAIT });
  const waiting = await standby.next();
  assert(waiting?.case === "standby");
  assert.equal(waiting.value.holder, "first");

  using third = new Stream(topic, { clientName: "third", onBusy: OnBusy.FAIL });
  const refused = infoOf(await refusal(third.rest(), Code.FailedPrecondition));
  assert.equal(refused.reason, "LEASE_HELD");
  assert.equal(refused.metadata.holder, "first");

  using taker = new Stream(topic, { clientName: "fourth", onBusy: OnBusy.TAKE_OVER });
  await taker.nextOf("attached");
  const ended = infoOf(await refusal(holder.rest(), Code.Aborted));
  assert.equal(ended.reason, "LEASE_TAKEN_OVER");
  assert.equal(ended.metadata.holder, "fourth");

  taker.cancel();
  await standby.nextOf("attached");
});

test("error-details", limits, async () => {
  const topic = await makeTopic();
  const refused = topics.createTopic({ topic: "no spaces, please" });
  const invalid = await refusal(refused, Code.InvalidArgument);
  const { domain, reason, metadata } = infoOf(invalid);
  assert.deepEqual([domain, reason], ["trunkline", "INVALID_FIELD"]);
  assert.equal(metadata.field, "topic");
  const [badRequest] = invalid.findDetails(BadRequestSchema);
  assert.deepEqual(
    badRequest?.fieldViolations.map(({ field }) => field),
    ["topic"],
  );

  const stranger = producers.publish({ topic, producerId: "stranger", messages: [{}] });
  const denied = infoOf(await refusal(stranger, Code.PermissionDenied));
  assert.deepEqual([denied.domain, denied.reason], ["trunkline", "PRODUCER_NOT_REGISTERED"]);
  assert.deepEqual(denied.metadata, { topic, producer_id: "stranger" });
});

test("one-mebibyte-message", limits, async () => {
  const topic = await makeTopic();
  const payload = Buffer.alloc(1_048_576, Buffer.from(range(0, 256)));
  assert.equal((await publish(topic, [payload])).firstOffset, 0n);
  const tooLarge = Buffer.concat([payload, Buffer.from("!")]);
  await refusal(publish(topic, [tooLarge]), Code.InvalidArgument);

  const got = messagesOf(await readAll(topic));
  assert.equal(got.length, 1);
  assert(payload.equals(got[0]?.payload ?? Buffer.of()));
  assert.equal((await topics.getTopic({ topic })).topic?.head, 1n);
});

test("ten-thousand-messages-in-a-stream", limits, async () => {
  const topic = await makeTopic();
  const request = (first: number) => ({
    topic,
    producerId: "shop",
    sequence: BigInt(first),
    messages: range(first, first + 100).map((n) => ({ payload: Buffer.from(`${n}`) })),
  });
  async function* requests() {
    yield* range(0, 10_000, 100).map(request);
    const [repeated, withAGap, following] = [9_900, 10_100, 10_000];
    yield* [repeated, withAGap, following].map(request);
  }

  const results = [];
  for await (const { result } of producers.publishStream(requests())) results.push(result);

  assert.equal(results.length, 103);
  const [repeated, withAGap, following] = results.splice(100);
  for (const [n, { case: kind, value }] of results.entries()) {
    assert(kind === "receipt");
    assert.equal(value.firstOffset, BigInt(n * 100));
    assert.equal(value.count, 100);
    assert(!value.duplicate);
  }
  assert(repeated?.case === "receipt");
  assert(repeated.value.duplicate);
  assert.equal(repeated.value.firstOffset, 9_900n);
  assert(withAGap?.case === "refusal");
  assert.equal(withAGap.value.reason, "SEQUENCE_GAP");
  assert.equal(withAGap.value.code, Code.OutOfRange);
  assert.equal(withAGap.value.metadata.expected, "10000");
  assert(following?.case === "receipt");
  assert.equal(following.value.firstOffset, 10_000n);
  assert.equal((await topics.getTopic({ topic })).topic?.head, 10_100n);
});

test("cancel-frees-the-lease", limits, async () => {
  const topic = await makeTopic();
  await publish(topic, Array<string>(1_000).fill("x".repeat(1_024)));
  using reader = new Stream(topic, { maxBatchMessages: 10 });
  assert.equal((await reader.nextOf("batch")).messages.length, 10);
  using waiting = new Stream(topic, { onBusy: OnBusy.WAIT });
  assert.equal((await waiting.next())?.case, "standby");

  reader.cancel();

  const { position } = await waiting.nextOf("attached");
  assert(10n <= position && position <= 1_000n);
  await publish(topic, ["last"]);
  const [first] = await waiting.take(1);
  assert.equal(first?.offset, position);
});

test("deadline", limits, async () => {
  const topic = await makeTopic();
  const readOn = async () => {
    const frames = consumers.consume({ topic, consumerId: "billing" }, { timeoutMs: 500 });
    for await (const { event } of frames) assert.notEqual(event.case, "batch");
  };
  await refusal(readOn(), Code.DeadlineExceeded);

  using next = new Stream(topic);
  await next.nextOf("attached");
});

test("resume-after-a-restart", limits, async () => {
  const topic = await makeTopic();
  await publish(topic, range(0, 10).map(String));
  await using broker = await Broker.start();
  const restart = async () => {
    await broker.stop();
    await publish(topic, range(10, 20).map(String));
    await broker.start();
  };
  const got: Received[] = [];
  let restarted: Promise<void> | undefined;
  await using consumer = await new Client(broker.target).consumer(topic, "billing");
  for await (const message of consumer) {
    got.push(message);
    if (got.length === 5) restarted = restart();
    if (got.length === 20) break;
  }
  await restarted;

  assert.deepEqual(
    got.map(({ offset }) => offset),
    range(0, 20).map(BigInt),
  );
  assert.deepEqual(
    got.map((message) => message.text()),
    range(0, 20).map(String),
  );
});

function text({ payload }: Message): string {
  return Buffer.from(payload).toString();
}

test("call-with-a-token", limits, async () => {
  const { TRUNKLINE_SECURE_TARGET: target, TRUNKLINE_SECURE_TOKEN: token } = process.env;
  assert(target && token, "TRUNKLINE_SECURE_TARGET and TRUNKLINE_SECURE_TOKEN must be set");
  const elsewhere = newName();
  await topics.createTopic({ topic: elsewhere });
  const nobody = new Client(target);
  const missing = await refusal(nobody.topics.getTopic({ topic: elsewhere }), Code.Unauthenticated);
  assert.equal(infoOf(missing).reason, "TOKEN_MISSING");

  const client = new Client(`http://${target}`, { token });
  const topic = `scenarios.${elsewhere}`;
  await client.ensureTopic(topic);
  await using producer = await client.producer(topic, "shop");
  await producer.publish("one coffee");
  await using consumer = await client.consumer(topic, "billing", { untilCaughtUp: true });
  const got: string[] = [];
  for await (const message of consumer) got.push(message.text());
  assert.deepEqual(got, ["one coffee"]);

  const hidden = await refusal(client.topics.getTopic({ topic: elsewhere }), Code.NotFound);
  assert.equal(infoOf(hidden).reason, "TOPIC_NOT_FOUND");
});
