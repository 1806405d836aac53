// What the package does with wrong arguments, and when something goes wrong.

import assert from "node:assert/strict";
import { test } from "node:test";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Client, Code, type Outgoing } from "trunkline";
import { Broker } from "./broker.ts";
import {
  client,
  consumers,
  drain,
  failure,
  firstEvents,
  infoOf,
  limits,
  makeTopic,
  newName,
  range,
  refusal,
  take,
  topics,
} from "./shared.ts";

test("a client refuses addresses and credentials that cannot work", () => {
  const refusals: [string, object, string][] = [
    ["", {}, "target"],
    ["broker", {}, "target"],
    ["ftp://broker:1", {}, "target"],
    ["http://broker:1/path", {}, "target"],
    ["http://user@broker:1", {}, "target"],
    ["broker:99999", {}, "target"],
    ["broker.example:50051", { token: "secret" }, "token"],
    ["http://10.0.0.1:50051", { token: async () => "secret" }, "token"],
    ["http://127.0.0.1.example:50051", { token: "secret" }, "token"],
    ["127.0.0.1:50051", { token: "" }, "token"],
    ["127.0.0.1:50051", { token: "two\nlines" }, "token"],
    ["127.0.0.1:50051", { ca: "pem" }, "ca"],
    ["https://broker:1", { ca: "" }, "ca"],
  ];
  for (const [target, options, field] of refusals) {
    const hasField = (error: unknown) => {
      assert.equal((error as { metadata?: { field?: string } }).metadata?.field, field, `${error}`);
      assert.doesNotMatch(`${error}`, /secret|lines/);
      return true;
    };
    assert.throws(
      () => new Client(target, options),
      hasField,
      `${target} ${JSON.stringify(options)}`,
    );
  }
  for (const host of ["127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST"]) {
    new Client(`${host}:50051`, { token: "secret" });
    new Client(`http://${host}:50051/`, { token: "secret" });
  }
  new Client("https://broker.example:443", { token: "secret", ca: "pem" });
});

test("options that cannot be kept are refused by name", limits, async () => {
  const topic = await makeTopic();
  for (const options of [
    { lingerMs: -1 },
    { maxBatchMessages: 10_001 },
    { maxBatchBytes: 0 },
    { maxBufferedBytes: 1_000 },
    { retryForMs: Number.NaN },
  ]) {
    const error = await failure(client.producer(topic, "shop", options));
    assert.deepEqual(error.metadata, { field: Object.keys(options)[0] });
  }
  for (const options of [
    { heartbeatIntervalMs: 1 },
    { maxInFlight: -1 },
    { maxInFlight: 0.5 },
    { start: 0.5 as never },
  ]) {
    const error = await failure(client.consumer(topic, "billing", options));
    assert.deepEqual(error.metadata, { field: Object.keys(options)[0] });
  }
  assert.equal((await failure(client.producer(topic, ""))).metadata.field, "producerId");
  assert.equal((await failure(client.consumer(topic, ""))).metadata.field, "consumerId");
  assert.equal(
    (await failure(client.ensureTopic("no spaces, please"))).fieldViolations[0]?.field,
    "topic",
  );
});

test("a message over a limit fails alone, with the limit named", limits, async () => {
  const topic = await makeTopic();
  await using producer = await client.producer(topic, "shop");
  const withHeaders = (headers: object) => ({ headers }) as Outgoing;
  const many = Object.fromEntries(range(0, 65).map((n) => [`${n}`, ""]));
  const refusals: [Outgoing, string][] = [
    [
      { payload: new Uint8Array(1_048_576), key: "k" },
      "message of 1048577 bytes is over the limit of 1048576",
    ],
    [withHeaders(many), "headers of 65 entries is over the limit of 64"],
    [
      withHeaders({ ["n".repeat(256)]: "" }),
      "headers of 256 bytes of a name is over the limit of 255",
    ],
    [withHeaders({ n: "v".repeat(16_384) }), "headers of 16385 bytes is over the limit of 16384"],
    [withHeaders({ "": "v" }), "headers hold an empty name"],
    [withHeaders({ n: "\0" }), "headers hold a NUL character"],
    [withHeaders({ n: 5 }), "headers n is not a string"],
    [{ payload: 5 as never }, "payload must be a string or a Uint8Array"],
    [{ key: {} as never }, "key must be a string or a Uint8Array"],
    [undefined as never, "message is undefined"],
  ];
  for (const [message, problem] of refusals) {
    assert.equal((await failure(producer.publish(message))).message, problem);
    assert.equal((await failure(producer.publish(message).accepted)).message, problem);
  }
  await producer.publish({ payload: new Uint8Array(1_048_576) });
  assert.equal((await topics.getTopic({ topic })).topic?.head, 1n);
});

test("an error that no receipt has told anybody comes out of flush and close", limits, async () => {
  const topic = await makeTopic();
  const producer = await client.producer(topic, "shop");
  const invalid = { payload: 5 as never };
  void producer.publish(invalid);
  void producer.publish("stored all the same");
  assert.match((await failure(producer.flush())).message, /^payload/);
  await producer.flush();
  await failure(producer.publish(invalid));
  await producer.flush();

  await client.producer(topic, "shop");
  void producer.publish("too late");
  assert.equal((await failure(producer.close())).reason, "PRODUCER_FENCED");
  await producer.close();
  assert.equal((await failure(producer.publish("after the end"))).reason, "PRODUCER_FENCED");
  assert.equal((await topics.getTopic({ topic })).topic?.head, 1n);

  const closed = await client.producer(topic, "shop");
  await closed.close();
  assert.equal((await failure(closed.publish("after the end"))).message, "the producer is closed");
});

test("bytes may be reused once a message is published", limits, async () => {
  const topic = await makeTopic();
  await using producer = await client.producer(topic, "shop");
  const bytes = Buffer.from("first");
  const first = producer.publish(bytes);
  bytes.write("other");
  await first;
  const [message] = await drain(await client.consumer(topic, "billing", { untilCaughtUp: true }));
  assert.equal(message?.text(), "first");
});

test("a consumer notices a broker that is silent, and goes on", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  const { onEvent, first } = firstEvents();
  const broken = first("broken");
  const own = new Client(broker.target);
  await using consumer = await own.consumer(topic, "billing", {
    heartbeatIntervalMs: 100,
    onEvent,
  });
  await publishNumbers(topic, 0, 5);
  assert.equal((await take(consumer, 5)).length, 5);
  broker.suspend();
  assert.equal((await broken).error.message, "the broker is silent");
  broker.resume();
  await publishNumbers(topic, 5, 10);
  assert.deepEqual(await offsetsOf(take(consumer, 5)), range(5, 10));
});

test("a consumer whose topic is deleted ends, and says so once", limits, async () => {
  const topic = await makeTopic();
  const consumer = await client.consumer(topic, "billing");
  const ended = failure(drain(consumer));
  await topics.deleteTopic({ topic });
  assert.equal((await ended).reason, "TOPIC_NOT_FOUND");
  await consumer.close();
});

test("a consumer follows a seek", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 5);
  await using consumer = await client.consumer(topic, "billing");
  assert.deepEqual(await offsetsOf(take(consumer, 5)), range(0, 5));
  await seek(topic, 2n);
  assert.deepEqual(await offsetsOf(take(consumer, 3)), [2, 3, 4]);
});

test("a consumer follows a seek made during a break", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 5);
  await using broker = await Broker.start();
  await using consumer = await new Client(broker.target).consumer(topic, "billing");
  assert.deepEqual(await offsetsOf(take(consumer, 4)), [0, 1, 2, 3]);
  await broker.stop();
  await seek(topic, 2n);
  await broker.start();
  assert.deepEqual(await offsetsOf(take(consumer, 4)), [4, 2, 3, 4]);
});

test("a message from before a seek is not committed", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 5);
  const { onEvent, first } = firstEvents();
  const repositioned = first("repositioned");
  await using consumer = await client.consumer(topic, "billing", { commit: "manual", onEvent });
  const messages = await take(consumer, 5);
  await seek(topic, 1n);
  // The broker refuses the old epoch, which must not keep the consumer from reading on.
  await consumer.commit(messages[4] ?? assert.fail());
  assert.equal((await repositioned).position, 1n);
  assert.equal(await positionOf(topic), 1n);
  const [again] = await take(consumer, 1);
  await consumer.commit(again ?? assert.fail());
  assert.equal(await positionOf(topic), 2n);
});

test("a message has the epoch in which it was received", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 5);
  await using broker = await Broker.start();
  const { onEvent, first } = firstEvents();
  await using consumer = await new Client(broker.target).consumer(topic, "billing", {
    commit: "manual",
    onEvent,
  });
  const [{ epoch } = assert.fail()] = await take(consumer, 1);
  const commit = { topic, consumerId: "billing", epoch, position: 1n };
  await consumers.commit(commit);
  await broker.stop();
  const attached = first("attached");
  await broker.start();
  await attached;
  const refused = await refusal(consumers.commit(commit), Code.Aborted);
  assert.equal(infoOf(refused).reason, "LEASE_LOST");

  await publishNumbers(topic, 5, 6);
  const messages = await take(consumer, 5);
  // Those that were read ahead keep the epoch that has ended.
  assert.deepEqual(
    messages.map((message) => message.epoch === epoch),
    [true, true, true, true, false],
  );
  await consumers.commit({ ...commit, epoch: messages[4]?.epoch ?? assert.fail(), position: 6n });
});

test("a commit that meets a break is made afterwards", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 5);
  await using broker = await Broker.start();
  await using consumer = await new Client(broker.target).consumer(topic, "billing", {
    commit: "manual",
  });
  const messages = await take(consumer, 5);
  await broker.kill();
  const committed = consumer.commit(messages[2] ?? assert.fail());
  await broker.start();
  await committed;
  assert.equal(await positionOf(topic), 3n);
});

test("a consumer with a limit of messages in flight goes on as it commits", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 100);
  const consumer = await client.consumer(topic, "billing", { maxInFlight: 3, untilCaughtUp: true });
  assert.deepEqual(await offsetsOf(drain(consumer)), range(0, 100));
});

test("a consumer begins where its registration says, and tells of a gap", limits, async () => {
  const topic = await makeTopic();
  await publishNumbers(topic, 0, 10);
  const [, second] = await drain(await client.consumer(topic, "all", { untilCaughtUp: true }));
  await publishNumbers(topic, 10, 20);
  for (const [start, count] of [
    ["earliest", 20],
    ["latest", 0],
    [15n, 5],
    [second?.publishTime, 20],
  ] as const) {
    const consumerId = `from-${count}-${typeof start}`;
    const consumer = await client.consumer(topic, consumerId, {
      start: start ?? "latest",
      untilCaughtUp: true,
    });
    assert.equal((await drain(consumer)).length, count, `${start}`);
  }

  await client.consumers.registerConsumer({ topic, consumerId: "late" });
  await topics.trimTopic({ topic, before: { case: "offset", value: 4n } });
  const { onEvent, first } = firstEvents();
  const gap = first("gap");
  const late = await client.consumer(topic, "late", { untilCaughtUp: true, onEvent });
  assert.deepEqual(await offsetsOf(drain(late)), range(4, 20));
  assert.deepEqual(await gap, { type: "gap", firstOffset: 0n, endOffset: 4n });
});

test("a topic keeps its settings", limits, async () => {
  const topic = newName();
  const retention = { maxAge: durationFromMs(3_600_000), maxMessages: 10n, keepUnread: true };
  const created = await client.ensureTopic(topic, {
    description: "a test",
    labels: { team: "shop" },
    retention,
  });
  assert.equal(created.description, "a test");
  assert.deepEqual(created.labels, { team: "shop" });
  assert.equal(created.retention?.maxAge?.seconds, 3_600n);
  assert.equal(created.retention.maxMessages, 10n);
  assert((await client.ensureTopic(topic)).retention?.keepUnread);
  const other = await failure(client.ensureTopic(topic, { description: "another" }));
  assert.equal(other.reason, "TOPIC_DIFFERS");
});

test("a token is asked for before each call", limits, async () => {
  const { TRUNKLINE_SECURE_TARGET: target, TRUNKLINE_SECURE_TOKEN: token } = process.env;
  assert(target && token, "TRUNKLINE_SECURE_TARGET and TRUNKLINE_SECURE_TOKEN must be set");
  const tokens = ["wrong", token];
  const own = new Client(target, { token: () => tokens.shift() ?? token });
  assert.equal(
    (await failure(own.ensureTopic(`scenarios.${newName()}`))).code,
    Code.Unauthenticated,
  );
  const topic = `scenarios.${newName()}`;
  await own.ensureTopic(topic);
  // The stream is refused at first, and is opened again with the token that has replaced the first one.
  tokens.push(token, "wrong");
  await using producer = await own.producer(topic, "shop");
  assert.equal(await producer.publish("one coffee"), 0n);
  tokens.push(token, "wrong");
  await using consumer = await own.consumer(topic, "billing");
  assert.deepEqual(await offsetsOf(take(consumer, 1)), [0]);
});

async function publishNumbers(topic: string, start: number, end: number): Promise<void> {
  await using producer = await client.producer(topic, "numbers");
  await Promise.all(range(start, end).map((n) => producer.publish(`${n}`)));
}

async function offsetsOf(messages: Promise<{ offset: bigint }[]>): Promise<number[]> {
  return (await messages).map(({ offset }) => Number(offset));
}

async function positionOf(topic: string): Promise<bigint | undefined> {
  return (await consumers.getConsumer({ topic, consumerId: "billing" })).consumer?.position;
}

async function seek(topic: string, offset: bigint): Promise<void> {
  await consumers.seek({ topic, consumerId: "billing", target: { case: "offset", value: offset } });
}
