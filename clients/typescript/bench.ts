// Compares the package with the stubs that it is made of: in each round, both publish and consume the
// same messages, in requests of the same size, with as many of them without an answer.
//
//     ../with-broker npx tsx bench.ts [MESSAGES] [ROUNDS]

import { randomUUID } from "node:crypto";
import { Client, type Receipt } from "trunkline";
import { CommitMode } from "trunkline/gen/trunkline/v1/consumer_pb.js";

const [messages = 200_000, rounds = 5] = process.argv.slice(2).map(Number);
const BATCH = 4_000;
const IN_FLIGHT = 8;
const payload = new Uint8Array(100).fill(120);

const client = new Client(process.env.TRUNKLINE_TARGET ?? "127.0.0.1:50051");

async function publishRaw(topic: string): Promise<void> {
  const producerId = "raw";
  await client.producers.registerProducer({ topic, producerId });
  let answered = 0;
  let wake = () => {};
  async function* requests() {
    for (let first = 0; first < messages; first += BATCH) {
      while (first - answered >= BATCH * IN_FLIGHT) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const count = Math.min(BATCH, messages - first);
      const batch = Array.from({ length: count }, () => ({ payload }));
      yield { topic, producerId, sequence: BigInt(first), messages: batch };
    }
  }
  for await (const { result } of client.producers.publishStream(requests(), { timeoutMs: 0 })) {
    if (result.case !== "receipt") throw new Error("a request was refused");
    answered += result.value.count;
    wake();
  }
  check(answered);
}

async function publishWithThePackage(topic: string): Promise<void> {
  await using producer = await client.producer(topic, "package", { maxBatchMessages: BATCH });
  for (let n = 1; n < messages; n += 1) await producer.publish(payload).accepted;
  check(Number(await producer.publish(payload)) + 1);
}

async function publishAndAwaitEach(topic: string): Promise<void> {
  await using producer = await client.producer(topic, "package", { maxBatchMessages: BATCH });
  const receipts: Receipt[] = [];
  for (let n = 0; n < messages; n += 1) {
    const receipt = producer.publish(payload);
    await receipt.accepted;
    receipts.push(receipt);
  }
  let count = 0;
  for (const receipt of receipts) {
    if ((await receipt) === BigInt(count)) count += 1;
  }
  check(count);
}

async function consumeRaw(topic: string): Promise<void> {
  const consumer = { topic, consumerId: "raw" };
  await client.consumers.registerConsumer(consumer);
  const request = {
    ...consumer,
    commitMode: CommitMode.MANUAL,
    stop: { case: "untilCaughtUp", value: true },
  } as const;
  let count = 0;
  let bytes = 0;
  for await (const { event } of client.consumers.consume(request, { timeoutMs: 0 })) {
    if (event.case !== "batch") continue;
    for (const message of event.value.messages) {
      count += 1;
      bytes += message.payload.length;
    }
  }
  check(count, bytes);
}

async function consumeWithThePackage(topic: string): Promise<void> {
  await using consumer = await client.consumer(topic, "package", { untilCaughtUp: true });
  let count = 0;
  let bytes = 0;
  for await (const message of consumer) {
    count += 1;
    bytes += message.payload.length;
  }
  check(count, bytes);
}

function check(count: number, bytes = count * payload.length): void {
  if (count !== messages || bytes !== messages * payload.length)
    throw new Error(`${count} messages, ${bytes} bytes`);
}

interface Measured {
  perSecond: number;
  cpuMicros: number;
}

async function measure(run: (topic: string) => Promise<void>, topic: string): Promise<Measured> {
  const [began, cpu] = [performance.now(), process.cpuUsage()];
  await run(topic);
  const { user, system } = process.cpuUsage(cpu);
  return {
    perSecond: (messages / (performance.now() - began)) * 1_000,
    cpuMicros: (user + system) / messages,
  };
}

const measured = new Map<string, Measured[]>();
for (let round = 0; round < rounds; round += 1) {
  const topics = [0, 1, 2].map(() => `bench-${randomUUID()}`);
  for (const topic of topics) await client.ensureTopic(topic);
  const [first = "", second = "", third = ""] = topics;
  const runs = [
    ["publish, stubs", publishRaw, first],
    ["publish, package", publishWithThePackage, second],
    ["publish, package, awaiting each receipt", publishAndAwaitEach, third],
    ["consume, stubs", consumeRaw, first],
    ["consume, package", consumeWithThePackage, second],
  ] as const;
  for (const [name, run, topic] of runs) {
    measured.set(name, [...(measured.get(name) ?? []), await measure(run, topic)]);
  }
  for (const topic of topics) await client.topics.deleteTopic({ topic });
}
client.close();

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

console.log(`${messages} messages of ${payload.length} B, median of ${rounds} rounds`);
const rates = new Map<string, number>();
for (const [name, all] of measured) {
  const rate = median(all.map(({ perSecond }) => perSecond));
  const cpu = median(all.map(({ cpuMicros }) => cpuMicros));
  const ratio = rate / (rates.get(name.replace(/,.*/, ", stubs")) ?? rate);
  rates.set(name, rate);
  console.log(
    `${name.padEnd(42)}${Math.round(rate).toLocaleString("en").padStart(9)}/s ${ratio.toFixed(2)} ${cpu.toFixed(2)} µs of CPU a message`,
  );
}
