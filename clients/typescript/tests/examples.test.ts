// Runs the examples unchanged, and tests what they promise when a broker goes away.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { consume } from "../examples/consume.ts";
import { publish } from "../examples/produce.ts";
import { Broker } from "./broker.ts";
import {
  connect,
  consumers,
  limits,
  makeTopic,
  publish as publishAtOnce,
  range,
  topics,
  transport,
} from "./shared.ts";

const runToItsEnd = promisify(execFile);

const options = { timeout: 10_000 };

test("quickstart", limits, async () => {
  for (const _ of range(0, 2)) {
    const { stdout, stderr } = await runToItsEnd(process.execPath, command("quickstart"), options);
    assert.match(stdout, /^\d+ one coffee\n$/);
    assert.equal(stderr, "");
  }
});

test("produce and consume", limits, async () => {
  const topic = await makeTopic();
  const lines = range(0, 1_000).map((n) => `${n}: grüße, 世界\n`);
  for (const part of [lines.slice(0, 600), lines.slice(600)]) {
    const produce = command("produce", topic, "shop");
    const producing = runToItsEnd(process.execPath, produce, options);
    producing.child.stdin?.end(part.join(""));
    const { stdout } = await producing;
    assert.match(stdout, /stored from offset/);
  }

  const consuming = spawn(process.execPath, command("consume", topic, "billing"), options);
  const got: string[] = [];
  for await (const line of createInterface(consuming.stdout)) {
    got.push(`${line}\n`);
    if (got.length === lines.length) consuming.kill("SIGINT");
  }
  assert.deepEqual(
    got,
    lines.map((line, offset) => `${offset} ${line}`),
  );
  if (consuming.exitCode === null) await once(consuming, "exit");
  assert.equal(consuming.exitCode, 0);
});

test("produce stores once despite a restart", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  async function* batches() {
    for (const n of range(0, 50)) {
      yield [`${n}`, `and ${n}`];
      if (n === 20) {
        await broker.stop();
        await broker.start();
      }
    }
  }

  const offsets = [];
  for await (const { firstOffset } of publish(connect(broker.target), topic, "shop", batches())) {
    offsets.push(firstOffset);
  }

  assert.deepEqual(offsets, range(0, 100, 2).map(BigInt));
  const { messages } = await topics.readMessages({ topic });
  const stored = messages.map(({ payload }) => Buffer.from(payload).toString());
  assert.deepEqual(
    stored,
    range(0, 50).flatMap((n) => [`${n}`, `and ${n}`]),
  );
});

test("consume follows a seek", limits, async ({ signal }) => {
  const topic = await makeTopic();
  await publishAtOnce(topic, range(0, 5).map(String));
  const offsets = [];
  for await (const { offset } of consume(transport, topic, "billing", signal)) {
    offsets.push(Number(offset));
    if (offsets.length === 5) await consumers.seek(seekToOffset2(topic));
    if (offsets.length === 8) break;
  }
  assert.deepEqual(offsets, [0, 1, 2, 3, 4, 2, 3, 4]);
});

test("consume follows a seek made during a break", limits, async ({ signal }) => {
  const topic = await makeTopic();
  await publishAtOnce(topic, range(0, 5).map(String));
  await using broker = await Broker.start();
  const offsets = [];
  for await (const { offset } of consume(connect(broker.target), topic, "billing", signal)) {
    offsets.push(Number(offset));
    if (offsets.length === 4) {
      await broker.stop();
      await consumers.seek(seekToOffset2(topic));
      await broker.start();
    }
    if (offsets.length === 8) break;
  }
  assert.deepEqual(offsets, [0, 1, 2, 3, 4, 2, 3, 4]);
});

function command(example: string, ...args: string[]): string[] {
  const script = fileURLToPath(new URL(`../examples/${example}.ts`, import.meta.url));
  return ["--import", "tsx", script, ...args];
}

function seekToOffset2(topic: string) {
  return { topic, consumerId: "billing", target: { case: "offset", value: 2n } } as const;
}
