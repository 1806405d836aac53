// A producer that batches messages, and stores each of them once, whatever breaks.
//
// At most eight requests are without an answer at a time, as many as the broker remembers of each
// producer. After a break they are sent again with their old sequences: the broker stores each once,
// and answers with the offsets it got.

import { create } from "@bufbuild/protobuf";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import type { NewMessage } from "../gen/trunkline/v1/message_pb.js";
import * as v1 from "../gen/trunkline/v1/producer_pb.js";
import { Changes } from "./changes.js";
import type { Endpoint } from "./connection.js";
import { TrunklineError } from "./error.js";
import { newMessage, type Outgoing, sizeOf } from "./message.js";
import { checkedNumbers } from "./options.js";
import { Outcome, Receipt } from "./receipt.js";
import { type Reader, ResumingStream } from "./stream.js";

/** How many requests may be without an answer. */
const WINDOW = 8;

/** A broker that owes an answer for this long, or for half of `retryForMs`, is taken for lost: so there is
 * always another try. */
const ANSWER_TIMEOUT_MS = 30_000;

/** How long disposal waits for messages none of which is stored. */
const DISPOSE_TIMEOUT_MS = 5_000;

/** What a message counts for besides its bytes. */
const OVERHEAD = 400;

const MIB = 1024 * 1024;

const LIMITS = {
  lingerMs: [5, 0, 600_000],
  maxBatchMessages: [4_000, 1, 10_000],
  maxBatchBytes: [MIB, 1, 8 * MIB],
  maxBufferedBytes: [32 * MIB, 2 * MIB, 1024 * MIB],
  retryForMs: [60_000, 100, 86_400_000],
} as const;

export interface ProducerOptions {
  /** How long a message may wait for others to share its request; 5 ms by default. It does not wait
   * while no request is without an answer. */
  lingerMs?: number;
  /** How many messages a request may hold, up to 10,000; 4,000 by default. */
  maxBatchMessages?: number;
  /** How many bytes a request may hold, up to 8 MiB; 1 MiB by default. A larger message gets a request
   * of its own. */
  maxBatchBytes?: number;
  /** How many bytes of messages may be without an answer; 32 MiB by default. A message counts for its
   * size and 400 bytes. */
  maxBufferedBytes?: number;
  /** How long to go on without a broker until messages fail; 60 s by default. */
  retryForMs?: number;
  /** Hears of each break before the next try. */
  onBreak?: (error: TrunklineError, pauseMs: number) => void;
}

/** The messages of one request. */
class Batch {
  readonly outcome = new Outcome();
  readonly messages: NewMessage[] = [];
  readonly began = performance.now();
  bytes = 0;
  sequence = 0n;
  /** Whether it is sent although it is not full. */
  isDue = false;
  /** Whether it is sent, and its answer may be lost: it may be stored, whatever the next answer says. */
  wasLost = false;
  #timer: NodeJS.Timeout | undefined;

  lingers(ms: number, onDue: () => void): void {
    this.#timer = setTimeout(onDue, ms);
  }

  /** Lingers no longer: a timer keeps the process alive. */
  stopLingering(): void {
    clearTimeout(this.#timer);
  }
}

const alreadyAccepted = Promise.resolve();

/** Publishes to one topic. Opening another producer of the same id fences this one. */
export class Producer {
  /** How many messages its id had published before: the sequence of this instance's first message. */
  readonly firstSequence: bigint;
  readonly #registration: v1.Producer;
  readonly #options: ProducerOptions;
  readonly #limits: Record<keyof typeof LIMITS, number>;
  readonly #changes = new Changes();
  readonly #stream: ResumingStream;
  /** Gathers messages; those before it are full, and those before them are sent. */
  #open: Batch | undefined;
  #full: Batch[] = [];
  #unanswered: Batch[] = [];
  #nextSequence: bigint;
  /** What all messages so far count for, and those that are answered. */
  #taken = 0;
  #freed = 0;
  #pause: Promise<void> | undefined;
  /** Why the last stream ended, if none has been answered since. */
  #broken: TrunklineError | undefined;
  #progressAt = performance.now();
  /** Why no more messages are taken. */
  #ended: TrunklineError | undefined;
  /** What has failed without anybody waiting for it: the first hundred. */
  #failed: Outcome[] = [];

  /** @internal */
  constructor(endpoint: Endpoint, registration: v1.Producer, options: ProducerOptions) {
    this.#registration = registration;
    this.#options = options;
    this.#limits = Producer.checkedLimits(options);
    this.firstSequence = registration.nextSequence;
    this.#nextSequence = registration.nextSequence;
    const silenceMs = Math.min(ANSWER_TIMEOUT_MS, this.#limits.retryForMs / 2);
    this.#stream = new ResumingStream(endpoint, this.#reader, { openMs: silenceMs, silenceMs });
  }

  /** @internal Fills in the defaults, and refuses limits that no producer can keep. */
  static checkedLimits(options: ProducerOptions) {
    return checkedNumbers(LIMITS, options);
  }

  /** Publishes a message. Await the receipt for its offset; or await its `accepted`, go on with the next
   * message, and `flush` after the last. */
  publish(outgoing: Outgoing): Receipt {
    let message: NewMessage;
    try {
      if (this.#ended) throw this.#ended;
      message = newMessage(outgoing);
    } catch (error) {
      const outcome = new Outcome();
      // Its message is counted before it fails.
      const receipt = new Receipt(outcome, this.#accept, 0);
      this.#fail(outcome, TrunklineError.from(error));
      return receipt;
    }
    const bytes = sizeOf(message);
    if (this.#open && this.#open.bytes + bytes > this.#limits.maxBatchBytes) this.#seal(this.#open);
    this.#open ??= this.#begin();
    const batch = this.#open;
    this.#taken += bytes + OVERHEAD;
    const receipt = new Receipt(batch.outcome, this.#accept, this.#taken);
    batch.messages.push(message);
    batch.bytes += bytes;
    if (batch.messages.length === this.#limits.maxBatchMessages) this.#seal(batch);
    return receipt;
  }

  /** Waits until everything published so far is stored. Throws the first error that no receipt has told
   * anybody. */
  async flush(): Promise<void> {
    if (this.#open) this.#release(this.#open);
    const newest = this.#open ?? this.#full.at(-1) ?? this.#unanswered.at(-1);
    await newest?.outcome.firstOffset.catch(() => {});
    const failed = this.#failed.find(({ isObserved }) => !isObserved);
    this.#failed = [];
    if (failed) throw failed.error;
  }

  /** Flushes, and ends the connection. */
  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      // Others may have published meanwhile.
      this.#failSent("the producer was closed before the broker answered", this.#broken);
      this.#end(new TrunklineError("the producer is closed", Code.FailedPrecondition));
      await this.#stream.stop();
    }
  }

  /** Closes the producer, and gives up once no broker has stored a message for 5 s: an error of the
   * caller's must not wait for as long as messages may. */
  async [Symbol.asyncDispose](): Promise<void> {
    const began = performance.now();
    const patienceMs = Math.min(DISPOSE_TIMEOUT_MS, this.#limits.retryForMs);
    const timer = setInterval(() => {
      const stalledMs = performance.now() - Math.max(began, this.#progressAt);
      if (stalledMs >= patienceMs) this.#end(this.#giveUp(patienceMs, this.#broken));
    }, patienceMs / 10);
    try {
      await this.close();
    } finally {
      clearInterval(timer);
    }
  }

  #begin(): Batch {
    const batch = new Batch();
    // Without a request under way it is sent at once, with what the caller publishes in this turn.
    if (this.#unanswered.length === 0) setImmediate(() => this.#release(batch));
    else batch.lingers(this.#limits.lingerMs, () => this.#release(batch));
    return batch;
  }

  #seal(batch: Batch): void {
    batch.stopLingering();
    this.#full.push(batch);
    this.#open = undefined;
    this.#changes.notify();
    // A caller who waits for nothing but room would keep this process from sending.
    this.#pause ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#pause = undefined;
        resolve();
      });
    });
  }

  #release(batch: Batch): void {
    batch.stopLingering();
    batch.isDue = true;
    this.#changes.notify();
  }

  /** Waits until there is room for everything before this end. */
  readonly #accept = (end: number): Promise<void> => {
    const isAccepted = () => end <= this.#freed + this.#limits.maxBufferedBytes;
    if (isAccepted()) return this.#pause ?? alreadyAccepted;
    return this.#until(isAccepted);
  };

  async #until(isAccepted: () => boolean): Promise<void> {
    while (!isAccepted()) {
      if (this.#ended) throw this.#ended;
      await this.#changes.next();
    }
  }

  /** The oldest messages without an answer. */
  get #oldest(): Batch | undefined {
    return this.#unanswered[0] ?? this.#full[0] ?? this.#open;
  }

  readonly #reader: Reader = {
    ready: async () => {
      while (!this.#oldest && !this.#ended) await this.#changes.next();
    },
    read: (transport, signal) => this.#deliver(transport, signal),
    isWaiting: () => this.#oldest !== undefined,
    recover: (error, pauseMs) => this.#recover(error, pauseMs),
    fail: (error) => this.#end(error),
  };

  /** Sends again what the stream before left without an answer, and goes on from there. */
  async #deliver(transport: Transport, signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#changes.notify());
    const producers = createClient(v1.ProducerService, transport);
    for await (const answer of producers.publishStream(this.#requests(signal), { signal })) {
      this.#record(answer);
    }
  }

  async *#requests(signal: AbortSignal): AsyncGenerator<v1.PublishStreamRequest, void, void> {
    for (const batch of [...this.#unanswered]) yield this.#encode(batch);
    while (!signal.aborted) {
      const batch = this.#next();
      if (batch) yield this.#encode(batch);
      else await this.#changes.next();
    }
  }

  /** Takes the next request that is due, if there is room for it in the window. */
  #next(): Batch | undefined {
    if (this.#unanswered.length >= WINDOW) return undefined;
    const batch = this.#full.shift() ?? (this.#open?.isDue ? this.#open : undefined);
    if (!batch) return undefined;
    if (batch === this.#open) this.#open = undefined;
    batch.sequence = this.#nextSequence;
    this.#nextSequence += BigInt(batch.messages.length);
    this.#unanswered.push(batch);
    return batch;
  }

  #encode({ messages, sequence }: Batch): v1.PublishStreamRequest {
    const { topic, producerId, epoch: producerEpoch } = this.#registration;
    const request = { topic, producerId, producerEpoch, sequence, messages };
    return create(v1.PublishStreamRequestSchema, request);
  }

  /** Records the answer to the oldest request. */
  #record({ result }: v1.PublishStreamResponse): void {
    // The requests behind a refused one leave a gap now, and new sequences would not be safe: after a
    // break, a request may still be under way with its old one.
    if (result.case === "refusal") throw TrunklineError.refused(result.value);
    const batch = result.case === "receipt" && this.#unanswered.shift();
    if (!batch) {
      this.#recordLoss();
      throw new TrunklineError("the broker gave an unexpected answer", Code.DataLoss);
    }
    this.#stream.recordLife(true);
    this.#progressAt = performance.now();
    this.#broken = undefined;
    this.#freed += batch.bytes + OVERHEAD * batch.messages.length;
    batch.outcome.store(result.value.firstOffset);
    if (this.#open && this.#unanswered.length === 0) this.#release(this.#open);
    this.#changes.notify();
  }

  /** Records that the answers to all that is sent may be lost. */
  #recordLoss(): void {
    for (const batch of this.#unanswered) batch.wasLost = true;
  }

  #recover(error: TrunklineError, pauseMs: number): number {
    this.#broken = error;
    this.#recordLoss();
    if (!this.#oldest) return 0;
    const stalledMs = performance.now() - Math.max(this.#oldest.began, this.#progressAt);
    const leftMs = this.#limits.retryForMs - stalledMs;
    if (leftMs <= 0) throw this.#giveUp(this.#limits.retryForMs, error);
    // However long the pause would be, there is a last try in time.
    const pause = Math.min(pauseMs, leftMs);
    this.#options.onBreak?.(error, pause);
    return pause;
  }

  /** Fails the messages that are sent, whose outcome is unknown. Returns the error of all others. */
  #giveUp(afterMs: number, cause?: TrunklineError): TrunklineError {
    const lost = `no broker has stored a message for ${afterMs} ms`;
    const because = cause ? `: ${cause.message}` : "";
    this.#failSent(`${lost}, so this one may be stored or not${because}`, cause);
    return new TrunklineError(`${lost}${because}`, Code.Unavailable, { cause });
  }

  #failSent(problem: string, cause?: TrunklineError): void {
    const error = TrunklineError.unknownOutcome(problem, cause);
    for (const { outcome } of this.#unanswered.splice(0)) this.#fail(outcome, error);
  }

  /** Takes no more messages, and fails those without an answer. The error is the answer to what was sent
   * since the last break, but not to what was sent before. */
  #end(error: TrunklineError): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#open?.stopLingering();
    const left = [...this.#unanswered, ...this.#full, ...(this.#open ? [this.#open] : [])];
    this.#unanswered = [];
    this.#full = [];
    this.#open = undefined;
    const problem = `not answered before the producer ended: ${error.message}`;
    const unknown = TrunklineError.unknownOutcome(problem, error);
    for (const { outcome, wasLost } of left) this.#fail(outcome, wasLost ? unknown : error);
    this.#changes.notify();
  }

  #fail(outcome: Outcome, error: TrunklineError): void {
    outcome.fail(error);
    if (outcome.isObserved) return;
    this.#failed = this.#failed.filter(({ isObserved }) => !isObserved).slice(0, 99);
    this.#failed.push(outcome);
  }
}
