// The scenarios of SCENARIOS.md that are about the package.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Client, Code, type Receipt } from "trunkline";
import { Broker } from "./broker.ts";
import {
  client,
  drain,
  failure,
  firstEvents,
  limits,
  makeTopic,
  newName,
  range,
  take,
  topics,
} from "./shared.ts";

const untilCaughtUp = true;

test("package-publish-and-consume", limits, async () => {
  const topic = newName();
  await client.ensureTopic(topic);
  await client.ensureTopic(topic);
  await using producer = await client.producer(topic, "shop");
  const sent = range(0, 10_000).map((n) => ({
    payload: `${n}`,
    key: `key ${n % 7}`,
    headers: { number: `${n}`, größe: "🚂" },
  }));
  const receipts: Receipt[] = [];
  for (const message of sent) {
    const receipt = producer.publish(message);
    await receipt.accepted;
    receipts.push(receipt);
  }
  assert.deepEqual(await Promise.all(receipts), range(0, 10_000).map(BigInt));

  const got = await drain(await client.consumer(topic, "billing", { untilCaughtUp }));

  const received = got.map(({ payload, key, headers }) => ({
    payload: Buffer.from(payload).toString(),
    key: Buffer.from(key ?? assert.fail()).toString(),
    headers,
  }));
  assert.deepEqual(received, sent);
  for (const [n, { offset, publishTime, producerId }] of got.entries()) {
    assert.equal(offset, BigInt(n));
    assert(publishTime.getFullYear() > 2000);
    assert.equal(producerId, "shop");
  }
  assert.deepEqual(await drain(await client.consumer(topic, "billing", { untilCaughtUp })), []);
});

test("package-commit-and-resume", limits, async () => {
  const topic = await topicWith(20);
  const manual = await client.consumer(topic, "billing", { commit: "manual" });
  const [, , , fourth] = await take(manual, 10);
  await manual.commit(fourth ?? assert.fail());
  await manual.close();
  assert.deepEqual(await firstOffset(topic, "billing"), 4n);

  const consumer = await client.consumer(topic, "audit");
  const fail = async () => {
    for await (const { offset } of consumer) {
      if (offset === 6n) throw new Error("cannot handle it");
    }
  };
  await assert.rejects(fail, /^Error: cannot handle it$/);
  assert.deepEqual(await firstOffset(topic, "audit"), 6n);
});

test("package-survives-a-kill", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  const own = new Client(broker.target);
  let restarted: Promise<void> | undefined;
  const publish = async () => {
    await using producer = await own.producer(topic, "shop", { maxBatchMessages: 100 });
    const receipts: Receipt[] = [];
    for (const n of range(0, 20_000)) {
      const receipt = producer.publish(`${n}`);
      await receipt.accepted;
      receipts.push(receipt);
      if (n === 10_000) {
        assert((await receipts[0]) === 0n);
        restarted = broker.kill().then(() => broker.start());
      }
    }
    return await Promise.all(receipts);
  };
  const consume = async () => {
    await using consumer = await own.consumer(topic, "billing", { clientName: "reader" });
    return await take(consumer, 20_000);
  };

  const [offsets, got] = await Promise.all([publish(), consume()]);

  await restarted;
  assert.deepEqual(offsets, range(0, 20_000).map(BigInt));
  // Within one consumer, messages that the broker repeats are skipped.
  assert.deepEqual(
    got.map((message) => [message.offset, message.text()]),
    range(0, 20_000).map((n) => [BigInt(n), `${n}`]),
  );
  assert.equal((await topics.getTopic({ topic })).topic?.head, 20_000n);
});

test("package-bounded-memory", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  const own = new Client(broker.target);
  {
    await using producer = await own.producer(topic, "shop", { maxBufferedBytes: 2 * 1024 * 1024 });
    await producer.publish("first");
    broker.suspend();
    // 31 of them fit, at 64 KiB and 400 bytes each.
    const payload = new Uint8Array(64 * 1024);
    for (const _ of range(0, 31)) await producer.publish(payload).accepted;
    const receipt = producer.publish(payload);
    let isAccepted = false;
    const accepted = receipt.accepted.then(() => {
      isAccepted = true;
    });
    for (const _ of range(0, 10)) await nextTurn();
    assert(!isAccepted);

    broker.resume();
    await accepted;
    assert.equal(await receipt, 32n);
  }
  assert.equal((await topics.getTopic({ topic })).topic?.head, 33n);

  const impatient = await own.producer(topic, "shop", { retryForMs: 500 });
  await impatient.publish("before");
  broker.suspend();
  const hung = await failure(impatient.publish("while it hangs"));
  assert.equal(hung.code, Code.Unavailable);
  assert.match(hung.message, /^no broker has stored a message for 500 ms.*the broker is silent$/);
  await impatient.close();

  broker.resume();
  const another = await own.producer(topic, "shop", { retryForMs: 500 });
  await broker.kill();
  const lost = await failure(another.publish("while it is away"));
  assert.match(lost.message, /^no broker has stored a message for 500 ms.*ECONNREFUSED/);
  await another.close();
});

test("package-errors", limits, async () => {
  const missing = newName();
  for (const open of [
    () => client.producer(missing, "shop"),
    () => client.consumer(missing, "billing"),
  ]) {
    const { code, reason, metadata } = await failure(open());
    assert.deepEqual(
      [code, reason, metadata],
      [Code.NotFound, "TOPIC_NOT_FOUND", { topic: missing }],
    );
  }

  const topic = await makeTopic();
  const first = await client.producer(topic, "shop");
  assert.equal(await first.publish("one"), 0n);
  await using second = await client.producer(topic, "shop");
  assert.equal((await failure(first.publish("two"))).reason, "PRODUCER_FENCED");
  await first.close();

  const before = second.publish("before");
  const tooLarge = await failure(second.publish(new Uint8Array(1_048_577)));
  const after = second.publish("after");
  assert.equal(tooLarge.message, "message of 1048577 bytes is over the limit of 1048576");
  assert.equal(tooLarge.code, Code.InvalidArgument);
  assert.deepEqual(tooLarge.metadata, { field: "message", limit: "1048576" });
  assert.deepEqual(
    tooLarge.fieldViolations.map(({ field }) => field),
    ["message"],
  );
  assert.deepEqual(await Promise.all([before, after]), [1n, 2n]);

  const broker = await Broker.start();
  const { onEvent, first: firstEvent } = firstEvents();
  const [attached, broken] = [firstEvent("attached"), firstEvent("broken")];
  await using _ = await new Client(broker.target).consumer(topic, "billing", { onEvent });
  await attached;
  await broker.stop();
  const { error } = await broken;
  assert.equal(error.reason, "DRAINING");
  assert(error.retryDelayMs !== undefined && error.retryDelayMs > 0);
});

test("package-lease", limits, async () => {
  const topic = await topicWith(10);
  const first = await client.consumer(topic, "billing", { clientName: "first" });
  await take(first, 5);
  const events = firstEvents();
  const standby = events.first("standby");
  const second = await client.consumer(topic, "billing", {
    clientName: "second",
    onEvent: events.onEvent,
  });
  assert.equal((await standby).holder, "first");
  await first.close();
  assert.deepEqual(
    (await take(second, 2)).map(({ offset }) => offset),
    [4n, 5n],
  );

  await using third = await client.consumer(topic, "billing", { takeOver: true });
  const taken = await failure(drain(second));
  assert.equal(taken.reason, "LEASE_TAKEN_OVER");
  assert.equal((await failure(second.next())).reason, "LEASE_TAKEN_OVER");
  await second.close();
  assert((await take(third, 1)).length === 1);
});

async function topicWith(count: number): Promise<string> {
  const topic = await makeTopic();
  await using producer = await client.producer(topic, "shop");
  await Promise.all(range(0, count).map((n) => producer.publish(`${n}`)));
  return topic;
}

async function firstOffset(topic: string, consumerId: string): Promise<bigint | undefined> {
  await using consumer = await client.consumer(topic, consumerId);
  const [message] = await take(consumer, 1);
  return message?.offset;
}
