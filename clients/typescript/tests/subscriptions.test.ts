// The scenarios of SCENARIOS.md about subscriptions.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Code } from "@connectrpc/connect";
import { BadRequestSchema } from "../gen/google/rpc/error_details_pb.js";
import { Stalled_Limit } from "../gen/trunkline/v1/subscription_pb.js";
import { infoOf, limits, makeTopic, producers, publish, range, refusal, Stream } from "./shared.ts";
import {
  acknowledge,
  acknowledgeAll,
  createSubscription,
  getSubscription,
  type Job,
  one,
  receive,
  settle,
  subscriptions,
  Worker,
} from "./worker.ts";

test("subscription-lifecycle", limits, async () => {
  const topic = await makeTopic();
  const names = { topic, subscriptionId: "resize" };
  const created = await createSubscription(topic, { ackDeadline: { seconds: 60n } });
  const exists = await refusal(subscriptions.createSubscription(names), Code.AlreadyExists);
  assert.equal(infoOf(exists).reason, "CONSUMER_EXISTS");
  const again = await subscriptions.createSubscription({ ...names, ifMissing: true });
  assert(again.existed);
  assert.deepEqual(again.subscription, created);

  const { subscription: updated } = await subscriptions.updateSubscription({
    ...names,
    policy: { ackDeadline: { seconds: 1n }, maxDeliveries: 3 },
    updateMask: { paths: ["max_deliveries"] },
  });
  assert.equal(updated?.policy?.maxDeliveries, 3);
  assert.equal(updated.policy.ackDeadline?.seconds, 60n);
  assert.deepEqual((await subscriptions.listSubscriptions({ topic })).subscriptions, [updated]);
  assert.deepEqual((await getSubscription(topic))?.policy, updated.policy);

  await subscriptions.deleteSubscription(names);
  assert.deepEqual((await subscriptions.listSubscriptions({ topic })).subscriptions, []);
  const gone = await refusal(getSubscription(topic), Code.NotFound);
  assert.equal(infoOf(gone).reason, "CONSUMER_NOT_FOUND");
});

test("subscription-stream", limits, async () => {
  const topic = await makeTopic();
  await createSubscription(topic);
  await publish(topic, range(0, 10).map(String));

  using worker = new Worker(topic);
  const attached = await worker.next();
  assert(attached?.case === "attached");
  assert.equal(attached.value.policy?.minBackoff?.seconds, 0n);
  assert.equal(attached.value.floor, 0n);
  assert.equal(attached.value.head, 10n);
  const jobs = await worker.jobs(10);
  assert.deepEqual(offsets(jobs), range(0, 10));
  assert.deepEqual(
    jobs.map(({ text }) => text),
    range(0, 10).map(String),
  );
  assert(jobs.every(({ attempts }) => attempts === 1));
  assert.equal((await worker.next())?.case, "caughtUp");

  const done = { delivery: jobs[0]?.delivery ?? assert.fail(), verdict: acknowledge };
  worker.settle(7n, [{ ...done, offsets: [7n, 2n] }]);
  worker.settle(8n, [{ ...done, ranges: [{ firstOffset: 4n, endOffset: 6n }] }]);
  worker.settle(9n, [{ ...done, offsets: [2n, 3n] }]);
  assert.equal(await worker.settled(7n), 2);
  assert.equal(await worker.settled(8n), 2);
  assert.equal(await worker.settled(9n), 1);
  await worker.close();

  using next = new Worker(topic);
  const again = await next.jobs(5);
  assert.deepEqual(offsets(again), [0, 1, 6, 8, 9]);
  assert(again.every(({ attempts }) => attempts === 2));
  next.settle(1n, acknowledgeAll(again));
  assert.equal(await next.settled(1n), 5);
  assert.equal((await getSubscription(topic)).floor, 10n);
});

test("subscription-two-workers", limits, async () => {
  const topic = await makeTopic();
  await createSubscription(topic);
  await publish(topic, range(0, 20).map(String));

  using first = new Worker(topic, { maxOutstandingMessages: 10 });
  const firsts = await first.jobs(10);
  assert.deepEqual(offsets(firsts), range(0, 10));
  const stalled = await first.next();
  assert(stalled?.case === "stalled");
  assert.equal(stalled.value.limit, Stalled_Limit.WORKER_MESSAGES);
  assert.equal(stalled.value.outstandingMessages, 10);
  using second = new Worker(topic);
  assert.deepEqual(offsets(await second.jobs(10)), range(10, 20));

  first.settle(1n, acknowledgeAll(firsts));
  assert.equal(await first.settled(1n), 10);
  second.cancel();
  const again = await first.jobs(10);
  assert.deepEqual(offsets(again), range(10, 20));
  assert(again.every(({ attempts }) => attempts === 2));
  first.settle(2n, acknowledgeAll(again));
  assert.equal(await first.settled(2n), 10);
  assert.equal((await getSubscription(topic)).floor, 20n);
});

test("subscription-receive-and-settle", limits, async () => {
  const topic = await makeTopic();
  await createSubscription(topic);
  await publish(topic, ["one", "two", "three"]);

  const jobs = await receive(topic, 3);
  const [retried, extended, shortened] = jobs;
  assert(retried && extended && shortened);
  const applied = await settle(topic, [
    one(retried, { case: "retry", value: { delay: { nanos: 100_000_000 } } }),
    one(extended, { case: "extend", value: { by: { seconds: 600n } } }),
    one(shortened, { case: "extend", value: { by: { seconds: 1n } } }),
  ]);
  assert.deepEqual(applied, [1, 1, 1]);

  const again = await receive(topic, 2);
  assert.deepEqual(offsets(again), [0, 2]);
  assert(again.every(({ attempts }) => attempts === 2));
  const all = [...jobs, ...again].map((job) => one(job, acknowledge));
  assert.deepEqual(await settle(topic, all), [0, 1, 0, 1, 1]);
  assert.equal((await getSubscription(topic)).floor, 3n);
});

test("subscription-parked", limits, async () => {
  const topic = await makeTopic();
  const names = { topic, subscriptionId: "resize" };
  await createSubscription(topic);
  await publish(topic, ["one", "two"]);

  const rejected = { case: "reject", value: { reason: "not a picture" } } as const;
  const jobs = await receive(topic, 2);
  const rejections = jobs.map((job) => one(job, rejected));
  assert.deepEqual(await settle(topic, rejections), [1, 1]);
  assert.equal((await getSubscription(topic)).parkedMessages, 2n);
  let pageToken = "";
  for (const offset of range(0, 2)) {
    const page = await subscriptions.listParked({ ...names, pageSize: 1, pageToken });
    assert.equal(page.messages.length, 1);
    const [parked] = page.messages;
    assert.equal(parked?.offset, BigInt(offset));
    assert.equal(parked.attempts, 1);
    assert.equal(parked.reason, "not a picture");
    assert(parked.parkTime);
    pageToken = page.nextPageToken;
  }
  assert.equal(pageToken, "");

  const { replayed } = await subscriptions.replayParked({ ...names, offsets: [1n] });
  assert.equal(replayed, 1);
  const [again] = await receive(topic, 1);
  assert.equal(again?.offset, 1n);
  assert.equal(again.attempts, 1);
  assert.deepEqual(await settle(topic, [one(again, acknowledge)]), [1]);

  const { discarded } = await subscriptions.discardParked(names);
  assert.equal(discarded, 1);
  assert.equal((await getSubscription(topic)).parkedMessages, 0n);
});

test("subscription-filter", limits, async () => {
  const topic = await makeTopic();
  await createSubscription(topic, { filter: 'headers.kind = "order" AND NOT headers:test' });
  const messages = [
    { headers: { kind: "offer" } },
    { headers: { kind: "order" } },
    { headers: { kind: "order", test: "" } },
    {},
    { headers: { kind: "order" } },
  ];
  await producers.publish({ topic, producerId: "shop", messages });

  const jobs = await receive(topic, 2);
  assert.deepEqual(offsets(jobs), [1, 4]);
  const all = jobs.map((job) => one(job, acknowledge));
  assert.deepEqual(await settle(topic, all), [1, 1]);
  assert.equal((await getSubscription(topic)).floor, 5n);
});

test("subscription-refusals", limits, async () => {
  const topic = await makeTopic();
  const filter = 'headers.kind == "order"';
  const invalid = await refusal(createSubscription(topic, { filter }), Code.InvalidArgument);
  assert.equal(infoOf(invalid).reason, "INVALID_FIELD");
  assert.equal(infoOf(invalid).metadata.field, "policy.filter");
  const [violation] = invalid.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
  assert.equal(violation?.field, "policy.filter");
  assert.match(violation.description, /at character 14/);

  await createSubscription(topic);
  using consumer = new Stream(topic, { consumerId: "resize" });
  const shared = await refusal(consumer.rest(), Code.FailedPrecondition);
  assert.equal(infoOf(shared).reason, "CONSUMER_IS_SHARED");
  const billing = { topic, subscriptionId: "billing" };
  const call = await refusal(subscriptions.receive(billing), Code.FailedPrecondition);
  assert.equal(infoOf(call).reason, "NOT_A_SUBSCRIPTION");
  using worker = new Worker(topic, billing);
  const stream = await refusal(worker.next(), Code.FailedPrecondition);
  assert.equal(infoOf(stream).reason, "NOT_A_SUBSCRIPTION");
});

function offsets(jobs: Job[]): number[] {
  return jobs.map(({ offset }) => Number(offset));
}
