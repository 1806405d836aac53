// Works on the messages of the subscription `resize`, by a stream and by unary calls.

import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import {
  type Delivery,
  type DeliveryPolicySchema,
  type OpenSubscriptionSchema,
  type SettlementSchema,
  type SubscribeRequestSchema,
  type SubscribeResponse,
  type Subscription,
  SubscriptionService,
} from "../gen/trunkline/v1/subscription_pb.js";
import { transport } from "./shared.ts";

export const subscriptions = createClient(SubscriptionService, transport);

/** A message that a worker has. */
export interface Job {
  readonly delivery: bigint;
  readonly offset: bigint;
  readonly attempts: number;
  readonly text: string;
}

type Settlement = MessageInitShape<typeof SettlementSchema>;
type Verdict = NonNullable<Settlement["verdict"]>;
type Event = SubscribeResponse["event"];
type Kind = NonNullable<Event["case"]>;
type Frame<K extends Kind> = Extract<Event, { case: K }>["value"];

export const acknowledge = { case: "acknowledge", value: {} } as const satisfies Verdict;

/** A worker's stream, cancelled when it is disposed of. */
export class Worker {
  readonly #cancelled = new AbortController();
  readonly #requests = new PassThrough({ objectMode: true });
  readonly #events: AsyncIterator<SubscribeResponse>;

  constructor(topic: string, options: MessageInitShape<typeof OpenSubscriptionSchema> = {}) {
    const signal = this.#cancelled.signal;
    this.#events = subscriptions.subscribe(this.#requests, { signal })[Symbol.asyncIterator]();
    this.#send({ case: "open", value: { topic, subscriptionId: "resize", ...options } });
  }

  /** The next event; undefined when the stream has ended OK. */
  async next(): Promise<Event | undefined> {
    const { done, value } = await this.#events.next();
    return done ? undefined : value.event;
  }

  /** The next event of a kind; skips those of other kinds. */
  async nextOf<K extends Kind>(kind: K): Promise<Frame<K>> {
    for (let event = await this.next(); event; event = await this.next()) {
      if (event.case === kind) return event.value as Frame<K>;
    }
    throw new Error(`the stream ended before an event of kind ${kind}`);
  }

  /** So many messages, in as many events as they come in; skips events of other kinds. */
  async jobs(count: number): Promise<Job[]> {
    const jobs: Job[] = [];
    while (jobs.length < count) jobs.push(...jobsOf((await this.nextOf("deliveries")).deliveries));
    assert.equal(jobs.length, count);
    return jobs;
  }

  settle(requestId: bigint, settlements: Settlement[]): void {
    this.#send({ case: "settle", value: { requestId, settlements } });
  }

  /** How many messages a request applied to, whose answer must be the next one. */
  async settled(requestId: bigint): Promise<number> {
    const settled = await this.nextOf("settled");
    assert.equal(settled.requestId, requestId);
    return settled.applied.reduce((sum, applied) => sum + applied, 0);
  }

  /** Closes the worker's side, and waits until the stream ends OK. */
  async close(): Promise<void> {
    this.#requests.end();
    while (await this.next());
  }

  cancel(): void {
    this.#cancelled.abort();
    this.#requests.destroy();
  }

  [Symbol.dispose](): void {
    this.cancel();
  }

  #send(request: MessageInitShape<typeof SubscribeRequestSchema>["request"] & object): void {
    this.#requests.write({ request });
  }
}

/** Creates a subscription that delivers messages again at once. */
export async function createSubscription(
  topic: string,
  policy: MessageInitShape<typeof DeliveryPolicySchema> = {},
): Promise<Subscription> {
  const { subscription } = await subscriptions.createSubscription({
    topic,
    subscriptionId: "resize",
    policy: { ...policy, minBackoff: durationFromMs(0) },
  });
  return subscription ?? assert.fail();
}

export async function getSubscription(topic: string): Promise<Subscription> {
  const request = { topic, subscriptionId: "resize" };
  return (await subscriptions.getSubscription(request)).subscription ?? assert.fail();
}

/** Takes so many messages, in as many calls as that needs. */
export async function receive(topic: string, count: number): Promise<Job[]> {
  const jobs: Job[] = [];
  while (jobs.length < count) {
    const { deliveries } = await subscriptions.receive({
      topic,
      subscriptionId: "resize",
      maxMessages: count - jobs.length,
      wait: { seconds: 9n },
    });
    assert(deliveries.length > 0, `no more messages came after ${jobs.length}`);
    jobs.push(...jobsOf(deliveries));
  }
  return jobs;
}

/** How many messages each settlement applied to. */
export async function settle(topic: string, settlements: Settlement[]): Promise<number[]> {
  const request = { topic, subscriptionId: "resize", settlements };
  return (await subscriptions.settle(request)).applied;
}

/** Settles a message by its offset. */
export function one({ delivery, offset }: Job, verdict: Verdict): Settlement {
  return { delivery, offsets: [offset], verdict };
}

/** Acknowledges the deliveries that messages came in, without naming offsets. */
export function acknowledgeAll(jobs: Job[]): Settlement[] {
  const deliveries = new Set(jobs.map(({ delivery }) => delivery));
  return Array.from(deliveries, (delivery) => ({ delivery, verdict: acknowledge }));
}

function jobsOf(deliveries: Delivery[]): Job[] {
  return deliveries.flatMap(({ delivery, batch, attempts }) =>
    (batch?.messages ?? []).map(({ offset, payload }, n) => ({
      delivery,
      offset,
      attempts: attempts[n] ?? assert.fail(),
      text: Buffer.from(payload).toString(),
    })),
  );
}
