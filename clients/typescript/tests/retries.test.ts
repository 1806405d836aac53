// What is tried again, what is not, and what becomes of messages and positions meanwhile.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { Client, Code } from "trunkline";
import { ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { MessageSchema } from "../gen/trunkline/v1/message_pb.js";
import { Changes } from "../src/changes.ts";
import { Commits } from "../src/commits.ts";
import { Endpoint } from "../src/connection.ts";
import { TrunklineError as Thrown } from "../src/error.ts";
import { Message } from "../src/message.ts";
import { ResumingStream } from "../src/stream.ts";
import { Broker } from "./broker.ts";
import { Relay } from "./relay.ts";
import {
  client,
  consumers,
  failure,
  firstEvents,
  limits,
  makeTopic,
  producers,
  publish,
  range,
  take,
  topics,
} from "./shared.ts";

test("a failure is tried again if it is of a connection, or the broker says so", () => {
  const { Unavailable, Canceled, Unknown, Internal, DeadlineExceeded, Aborted } = Code;
  const { ResourceExhausted, NotFound, PermissionDenied, FailedPrecondition, DataLoss } = Code;
  const reasonless = [Canceled, Unknown, Internal, DeadlineExceeded, Aborted, ResourceExhausted];
  const final = [...reasonless, NotFound, PermissionDenied, FailedPrecondition, DataLoss];
  const isTransient = (code: Code, details: Partial<Thrown> = {}) =>
    new Thrown("it failed", code, details).isTransient;
  assert(isTransient(Unavailable));
  assert(isTransient(Unavailable, { reason: "DRAINING" }));
  for (const code of reasonless) assert(isTransient(code), Code[code]);
  for (const code of final) {
    assert(!isTransient(code, { reason: "A_REASON" }), Code[code]);
    assert(isTransient(code, { reason: "A_REASON", retryDelayMs: 500 }), Code[code]);
  }
  assert(!isTransient(NotFound));
});

test("a stream may take 30 s to open, and is silent for less afterwards", limits, async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const seen = new EventEmitter();
  const opened = once(seen, "open");
  const broken = once(seen, "broken");
  let isBroken = false;
  const stream = new ResumingStream(
    new Endpoint("127.0.0.1:1", {}),
    {
      ready: async () => {},
      read: async (_, signal) => {
        const ended = new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
        seen.emit("open");
        await ended;
      },
      isWaiting: () => true,
      recover: (error) => {
        isBroken = true;
        seen.emit("broken", error);
        return 0;
      },
      fail: () => assert.fail(),
    },
    { openMs: 30_000, silenceMs: 300 },
  );
  await opened;
  t.mock.timers.tick(29_000);
  for (const _ of range(0, 10)) await nextTurn();
  assert(!isBroken);
  stream.recordLife(true);
  t.mock.timers.tick(300);
  const [error] = await broken;
  assert.equal(error.message, "the broker is silent");
  await stream.stop();
});

test("two callers who wait for the next message each get one", limits, async () => {
  const topic = await makeTopic();
  const { onEvent, first } = firstEvents();
  const attached = first("attached");
  await using consumer = await client.consumer(topic, "billing", { onEvent });
  const both = [consumer.next(), consumer.next()];
  await attached;
  await publish(topic, ["one", "two"]);
  const got = (await Promise.all(both)).map(({ value }) => value?.offset);
  assert.deepEqual(got.sort(), [0n, 1n]);
});

/** A relay that refuses commits and publish streams, for as long as there is a refusal. */
async function refuser() {
  const seen = new EventEmitter();
  const state: { refusal: ConnectError | undefined; seen: EventEmitter } = {
    refusal: new ConnectError("not granted", Code.PermissionDenied, undefined, [
      { desc: ErrorInfoSchema, value: { domain: "trunkline", reason: "NOT_GRANTED" } },
    ]),
    seen,
  };
  const relay = await Relay.start({
    commit: async (request) => {
      if (state.refusal) throw state.refusal;
      const answer = await consumers.commit(request);
      seen.emit("committed", request.position);
      return answer;
    },
    async *publishStream(requests) {
      for await (const _ of requests) {
        if (state.refusal) throw state.refusal;
        // Neither a receipt nor a refusal.
        yield {};
      }
    },
  });
  return { relay, state };
}

test("a refused commit is tried again, and the iteration goes on", limits, async () => {
  const topic = await makeTopic();
  await publish(topic, ["one", "two", "three"]);
  const { relay, state } = await refuser();
  using _ = relay;
  await using consumer = await new Client(relay.target).consumer(topic, "billing", {
    commit: "manual",
  });
  const [one, two] = await take(consumer, 2);
  assert.equal((await failure(consumer.commit(one ?? assert.fail()))).reason, "NOT_GRANTED");
  assert.equal((await failure(consumer.commit(two ?? assert.fail()))).reason, "NOT_GRANTED");
  assert.equal((await take(consumer, 1))[0]?.offset, 2n);
  const committed = once(state.seen, "committed");
  state.refusal = undefined;
  assert.deepEqual(await committed, [2n]);
});

test("a consumer that is closed while commits are refused says so", limits, async () => {
  const topic = await makeTopic();
  await publish(topic, ["one", "two"]);
  const { relay, state } = await refuser();
  using _ = relay;
  const own = new Client(relay.target);
  const consumer = await own.consumer(topic, "billing");
  await take(consumer, 2);
  assert.equal((await failure(consumer.close())).reason, "NOT_GRANTED");
  // The lease is free.
  state.refusal = undefined;
  await using next = await own.consumer(topic, "billing");
  assert.equal((await take(next, 1))[0]?.offset, 0n);
});

/** Commits whose calls the test answers, one after the other. */
function answeredCommits() {
  const seen = new EventEmitter();
  const commit = async (call: { epoch: bigint; position: bigint }) => {
    const answered = once(seen, "answer");
    seen.emit("call", call);
    const [refusal] = await answered;
    if (refusal) throw refusal;
  };
  const target = { topic: "t", consumerId: "billing", maxInFlight: 0, consumers: { commit } };
  const commits = new Commits(target as never, new Changes());
  return {
    commits,
    handle: (offset: bigint) =>
      commits.handle(new Message(create(MessageSchema, { offset }), 1n, 0)),
    nextCall: async () => {
      const [{ epoch, position }] = await once(seen, "call");
      return [epoch, position];
    },
    answer: (refusal?: ConnectError) => seen.emit("answer", refusal),
  };
}

test("what a new stream delivers during a commit is committed after it", limits, async () => {
  const { commits, handle, nextCall, answer } = answeredCommits();
  commits.beginEpoch(1n, 0n);
  commits.recordDelivered(100n);
  handle(99n);
  commits.beginEpoch(2n, 50n);
  const first = nextCall();
  commits.recordDelivered(60n);
  assert.deepEqual(await first, [2n, 60n]);
  commits.recordDelivered(100n);
  const second = nextCall();
  answer();
  assert.deepEqual(await second, [2n, 100n]);
});

test("a commit that the end of its epoch refused is made in the next one", limits, async () => {
  const { commits, handle, nextCall, answer } = answeredCommits();
  commits.beginEpoch(1n, 0n);
  commits.recordDelivered(2n);
  const first = nextCall();
  handle(1n);
  assert.deepEqual(await first, [1n, 2n]);
  commits.beginEpoch(2n, 0n);
  commits.recordDelivered(2n);
  const second = nextCall();
  const info = { domain: "trunkline", reason: "LEASE_LOST" };
  answer(new ConnectError("lost", Code.Aborted, undefined, [{ desc: ErrorInfoSchema, value: info }]));
  assert.deepEqual(await second, [2n, 2n]);
});

test("only messages that a consumer has returned can be committed", limits, async () => {
  const topic = await makeTopic();
  await using consumer = await client.consumer(topic, "billing", { commit: "manual" });
  for (const nothing of [null, undefined, {}]) {
    const error = await failure(consumer.commit(nothing as never));
    assert.deepEqual([error.reason, error.metadata.field], ["INVALID_FIELD", "message"]);
  }
});

test("a refusal with a retry delay is tried again after it", limits, async () => {
  const topic = await makeTopic();
  let refusals = 0;
  using relay = await Relay.start({
    async *publishStream(requests, { signal }) {
      if (refusals++ === 0) {
        for await (const _ of requests) {
          const value = {
            code: Code.ResourceExhausted,
            reason: "RATE_EXCEEDED",
            message: "too fast",
            retryDelay: durationFromMs(700),
          };
          yield { result: { case: "refusal", value } };
        }
      }
      yield* new Client(process.env.TRUNKLINE_TARGET ?? "").producers.publishStream(requests, {
        signal,
      });
    },
  });
  const breaks: [string, number][] = [];
  await using producer = await new Client(relay.target).producer(topic, "shop", {
    onBreak: ({ reason }, pauseMs) => void breaks.push([reason, pauseMs]),
  });
  assert.equal(await producer.publish("one coffee"), 0n);
  assert.deepEqual(breaks, [["RATE_EXCEEDED", 700]]);
});

test("messages are unknown to be stored only if they were sent", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  const own = new Client(broker.target);
  const options = { retryForMs: 500, maxBatchMessages: 1 };
  const producer = await own.producer(topic, "shop", options);
  await producer.publish("stored");
  broker.suspend();
  // Eight requests are sent. The ninth waits for an answer.
  const receipts = range(0, 9).map((n) => producer.publish(`${n}`));
  const reasons = receipts.map(async (receipt) => {
    const { code, reason } = await failure(receipt);
    assert.equal(code, Code.Unavailable);
    return reason;
  });
  assert.deepEqual(await Promise.all(reasons), [...Array(8).fill("OUTCOME_UNKNOWN"), ""]);
  broker.resume();

  const lost = await own.producer(topic, "shop", options);
  await broker.kill();
  const never = await failure(lost.publish("never sent"));
  assert.deepEqual([never.code, never.reason], [Code.Unavailable, ""]);
});

test("what was sent before a break may be stored, whatever refuses the rest", limits, async () => {
  const topic = await makeTopic();
  const seen = new EventEmitter();
  let streams = 0;
  using relay = await Relay.start({
    async *publishStream(requests, { signal }) {
      if (streams++ === 0) {
        for await (const _ of requests) {
          seen.emit("request");
          await once(seen, "break");
          throw new ConnectError("it broke", Code.Unavailable);
        }
      }
      yield* producers.publishStream(requests, { signal, timeoutMs: 0 });
    },
  });
  const arrived = once(seen, "request");
  const own = new Client(relay.target);
  const producer = await own.producer(topic, "shop", { lingerMs: 600_000 });
  const sent = producer.publish("sent");
  await arrived;
  const unsent = producer.publish("never sent");
  await client.producer(topic, "shop");
  seen.emit("break");

  const unknown = await failure(sent);
  assert.deepEqual([unknown.code, unknown.reason], [Code.Unavailable, "OUTCOME_UNKNOWN"]);
  assert.match(unknown.message, /^not answered before the producer ended: ./);
  assert.equal((unknown.cause as Thrown).reason, "PRODUCER_FENCED");
  assert.equal((await failure(unsent)).reason, "PRODUCER_FENCED");
  assert.equal((await failure(producer.publish("too late"))).reason, "PRODUCER_FENCED");
  await producer.close();
});

test("an answer to a first sending is the error of its messages", limits, async () => {
  const topic = await makeTopic();
  const { relay, state } = await refuser();
  using _ = relay;
  const own = new Client(relay.target);
  const refused = await own.producer(topic, "shop");
  assert.equal((await failure(refused.publish("refused"))).reason, "NOT_GRANTED");
  await refused.close();
  state.refusal = undefined;
  const baffled = await own.producer(topic, "shop");
  const unknown = await failure(baffled.publish("answered by nothing"));
  assert.equal(unknown.reason, "OUTCOME_UNKNOWN");
  assert.equal((unknown.cause as Thrown).code, Code.DataLoss);
  await baffled.close();
});

test("what is sent while a producer closes may be stored", limits, async () => {
  const topic = await makeTopic();
  const seen = new EventEmitter();
  using relay = await Relay.start({
    async *publishStream(requests) {
      const arriving = requests[Symbol.asyncIterator]();
      await arriving.next();
      seen.emit("request");
      await arriving.next();
      // Only the first one is answered.
      yield { result: { case: "receipt", value: { firstOffset: 0n } } };
      await arriving.next();
    },
  });
  const arrived = once(seen, "request");
  const options = { maxBatchMessages: 2, lingerMs: 600_000 };
  const producer = await new Client(relay.target).producer(topic, "shop", options);
  const first = producer.publish("first");
  await arrived;
  const closed = producer.close();
  const [sent] = [producer.publish("sent"), producer.publish("in the same request")];
  const unsent = producer.publish("lingers");
  await closed;
  assert.equal(await first, 0n);
  const unknown = await failure(sent);
  assert.deepEqual([unknown.code, unknown.reason], [Code.Unavailable, "OUTCOME_UNKNOWN"]);
  assert.equal(unknown.message, "the producer was closed before the broker answered");
  const { code, message } = await failure(unsent);
  assert.deepEqual([code, message], [Code.FailedPrecondition, "the producer is closed"]);
});

test("a broker that owes an answer for half of the patience is given up", limits, async () => {
  const topic = await makeTopic();
  let streams = 0;
  using relay = await Relay.start({
    async *publishStream(requests, { signal }) {
      if (streams++ === 0) for await (const _ of requests);
      yield* producers.publishStream(requests, { signal, timeoutMs: 0 });
    },
  });
  const options = { retryForMs: 4_000 };
  await using producer = await new Client(relay.target).producer(topic, "shop", options);
  assert.equal(await producer.publish("one coffee"), 0n);
});

test("an error of the caller's waits for 5 s at most", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  const producer = await new Client(broker.target).producer(topic, "shop");
  await producer.publish("stored");
  broker.suspend();
  void producer.publish("sent");
  const began = performance.now();
  const { reason, message } = await failure(producer[Symbol.asyncDispose]());
  assert.equal(reason, "OUTCOME_UNKNOWN");
  assert.match(message, /^no broker has stored a message for 5000 ms/);
  assert(performance.now() - began < 20_000);
});

test("an error is told unless all its messages are waited for", limits, async () => {
  const topic = await makeTopic();
  const unhandled: unknown[] = [];
  const onUnhandled = (reason: unknown) => void unhandled.push(reason);
  process.on("unhandledRejection", onUnhandled);
  try {
    const producer = await client.producer(topic, "shop");
    await client.producer(topic, "shop");
    const [first] = [producer.publish("one"), producer.publish("of the same request")];
    assert.equal((await failure(first)).reason, "PRODUCER_FENCED");
    assert.equal((await failure(producer.flush())).reason, "PRODUCER_FENCED");
    await producer.close();
    for (const _ of range(0, 10)) await nextTurn();
    assert.deepEqual(unhandled, []);
  } finally {
    process.off("unhandledRejection", onUnhandled);
  }
});

test("no message is a message", limits, async () => {
  const topic = await makeTopic();
  await using producer = await client.producer(topic, "shop");
  const headers = null as never;
  for (const [message, field] of [
    [null, "message"],
    [undefined, "message"],
    [{ headers }, "headers"],
  ] as const) {
    const error = await failure(producer.publish(message as never));
    assert.deepEqual([error.reason, error.metadata], ["INVALID_FIELD", { field }]);
  }
  assert.equal((await topics.getTopic({ topic })).topic?.head, 0n);
});

test("a process ends once all is closed, also after failures", limits, async () => {
  const topic = await makeTopic();
  const program = `
    import { Client } from "trunkline";
    const client = new Client("${process.env.TRUNKLINE_TARGET}");
    const producer = await client.producer("${topic}", "shop", { lingerMs: 600_000 });
    const consumer = await client.consumer("${topic}", "billing");
    await producer.publish("the stream is open");
    // The second one lingers behind the first.
    void producer.publish("one");
    await new Promise(setImmediate);
    void producer.publish("two");
    await consumer.next();
    // Fences the first one.
    const fencing = await client.producer("${topic}", "shop");
    await producer.close().catch(({ reason }) => console.log(reason));
    await Promise.all([fencing.close(), consumer.close()]);
    client.close();
    console.log("closed");`;
  const run = promisify(execFile);
  const args = ["--input-type=module", "--eval", program];
  const { stdout } = await run(process.execPath, args, { timeout: 20_000 });
  assert.match(stdout, /closed\n$/);
});
