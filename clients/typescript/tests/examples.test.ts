// Runs the examples unchanged, and tests what they promise when a broker goes away.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import { Broker } from "./broker.ts";
import { client, limits, makeTopic, newName, publish, range, take, topics } from "./shared.ts";

const runToItsEnd = promisify(execFile);

const options = { timeout: 20_000 };

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

test("work", limits, async () => {
  const topic = await makeTopic();
  await publish(topic, ["one", "two"]);
  const work = command("work", topic, "resize");
  const { stdout } = await runToItsEnd(process.execPath, work, options);
  assert.equal(stdout, "0 one (attempt 1)\n1 two (attempt 1)\n");
  const { subscription } = await client.subscriptions.getSubscription({
    topic,
    subscriptionId: "resize",
  });
  assert.equal(subscription?.floor, 2n);
});

test("produce stores once despite a restart", limits, async () => {
  const topic = await makeTopic();
  await using broker = await Broker.start();
  const env = { ...process.env, TRUNKLINE_TARGET: broker.target };
  const producing = spawn(process.execPath, command("produce", topic, "shop"), { ...options, env });
  const printed = createInterface(producing.stdout)[Symbol.asyncIterator]();
  const warned = createInterface(producing.stderr)[Symbol.asyncIterator]();

  producing.stdin.write(`${range(0, 50).join("\n")}\n`);
  await using consumer = await client.consumer(topic, "billing");
  await take(consumer, 50);
  await broker.stop();
  producing.stdin.end(`${range(50, 100).join("\n")}\n`);
  assert.match((await warned.next()).value, /trying again in \d+ ms$/);
  await broker.start();

  assert.equal((await printed.next()).value, "100 stored from offset 0 on");
  const { messages } = await topics.readMessages({ topic });
  const stored = messages.map(({ payload }) => Buffer.from(payload).toString());
  assert.deepEqual(stored, range(0, 100).map(String));
});

for (const example of ["sql-pg", "sql-drizzle"]) {
  test(`${example} does not publish what is rolled back`, limits, async () => {
    const topic = newName();
    await using database = await ownSchema();
    const env = { ...process.env, DATABASE_URL: database.url };
    const running = spawn(process.execPath, command(example, topic, "billing"), {
      ...options,
      env,
    });
    running.stderr.pipe(process.stderr);
    const printed: string[] = [];
    for await (const line of createInterface(running.stdout)) {
      printed.push(line);
      if (printed.length === 2) running.kill("SIGINT");
    }
    if (running.exitCode === null) await once(running, "exit");
    assert.equal(running.exitCode, 0);

    const orders = [
      { id: 1, item: "one coffee" },
      { id: 3, item: "three cakes" },
    ];
    const parsed = printed.map((line) => /^(\d+) (.*)$/.exec(line)?.slice(1) ?? assert.fail(line));
    assert.deepEqual(
      parsed.map(([key, event]) => [key, JSON.parse(event ?? "")]),
      orders.map((order) => [`${order.id}`, order]),
    );
    const { messages } = await topics.readMessages({ topic });
    assert.deepEqual(
      messages.map(({ payload }) => JSON.parse(Buffer.from(payload).toString())),
      orders,
    );
    const { rows } = await database.query("select id::int, item from orders order by id");
    assert.deepEqual(rows, orders);
  });
}

/** The database of the brokers, where tables are made in a schema that no other test uses. */
async function ownSchema() {
  const schema = `typescript_${randomUUID().replaceAll("-", "")}`;
  const url = `${process.env.TRUNKLINE_DATABASE_URL}&options=-csearch_path%3D${schema}`;
  const connection = new pg.Client({ connectionString: url });
  await connection.connect();
  await connection.query(`create schema ${schema}`);
  return {
    url,
    query: (text: string) => connection.query(text),
    async [Symbol.asyncDispose]() {
      await connection.query(`drop schema ${schema} cascade`);
      await connection.end();
    },
  };
}

function command(example: string, ...args: string[]): string[] {
  const script = fileURLToPath(new URL(`../examples/${example}.ts`, import.meta.url));
  return ["--import", "tsx", script, ...args];
}
