// Commits what a consumer has handled. The newest position stands for all before it.

import { setTimeout as sleep } from "node:timers/promises";
import { Code, type Client as Stub } from "@connectrpc/connect";
import type { ConsumerService } from "../gen/trunkline/v1/consumer_pb.js";
import type { Changes } from "./changes.js";
import { TrunklineError } from "./error.js";
import { Message } from "./message.js";
import { pauseBeforeRetryMs } from "./stream.js";

/** How many messages may be handled, and for how long, until they are committed. */
const EVERY_MESSAGES = 5_000;
const EVERY_MS = 100;

/** Whose position it is, and how it is stored. */
export interface CommitTarget {
  consumers: Stub<typeof ConsumerService>;
  topic: string;
  consumerId: string;
  maxInFlight: number;
}

/** A consumer's position: what is handled, and what the broker has stored. */
export class Commits {
  /** How many seeks there were. What belongs to an earlier number is void. */
  seeks = 0;
  epoch = 0n;
  /** Whether the broker has refused the epoch. The stream says why, if it is read on. */
  isEpochOver = false;
  readonly #target: CommitTarget;
  readonly #changes: Changes;
  readonly #everyMessages: number;
  readonly #stopped = new AbortController();
  /** The newest message that is handled, and how many are since the last commit. */
  #handled: Message | undefined;
  #handledCount = 0;
  /** The offset after the last message that this epoch's stream delivered: no commit may exceed it. */
  #delivered = 0n;
  #committed = 0n;
  /** How many callers wait for a commit. */
  #waiting = 0;
  #isCommitting = false;
  /** How many calls have failed in a row, and the error of the last one. */
  #failures = 0;
  #failure: TrunklineError | undefined;
  /** How many calls the broker has refused for a reason that a retry need not remedy. */
  #refusals = 0;
  /** The pause behind the last failure. */
  #pause = new AbortController();
  #ended: TrunklineError | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(target: CommitTarget, changes: Changes) {
    this.#target = target;
    this.#changes = changes;
    // The broker waits for a commit when that many messages are in flight.
    this.#everyMessages = Math.min(EVERY_MESSAGES, Math.ceil((target.maxInFlight || Infinity) / 2));
  }

  get #position(): bigint {
    return this.#handled ? this.#handled.offset + 1n : 0n;
  }

  /** Why the last call failed, if it did. */
  get failure(): TrunklineError | undefined {
    return this.#failure;
  }

  /** Whether a new stream has yet to deliver what is to be committed. */
  get needsDelivery(): boolean {
    return this.#delivered < this.#position;
  }

  /** Records that a message, and all before it, are handled: they are committed soon. */
  handle(message: Message): void {
    if (Message.seeksBefore(message) !== this.seeks) return;
    if (this.#handled && message.offset <= this.#handled.offset) return;
    this.#handled = message;
    this.#handledCount += 1;
    if (this.#handledCount >= this.#everyMessages) void this.#commitPending();
    else this.#timer ??= setTimeout(() => this.#commitPending(), EVERY_MS);
  }

  /** Commits a message, and all before it, at once. */
  commit(message: Message): Promise<void> {
    const committed = this.#commit(message);
    // An error that nobody waits for comes out of the iteration, or of close.
    committed.catch(() => {});
    return committed;
  }

  async #commit(message: Message): Promise<void> {
    if (!(message instanceof Message))
      throw TrunklineError.invalid("message", "must be one that the consumer has returned");
    this.handle(message);
    await this.#untilCommitted(message.offset + 1n, Message.seeksBefore(message));
  }

  /** Commits everything handled at once, as nothing more will be. */
  finish(): Promise<void> {
    this.#pause.abort();
    return this.#untilCommitted(this.#position, this.seeks);
  }

  /** Records that a stream got the lease, or that a seek began a new epoch, at a position. */
  beginEpoch(epoch: bigint, position: bigint): void {
    this.epoch = epoch;
    this.isEpochOver = false;
    this.#delivered = position;
    this.#recordCommitted(position);
    void this.#commitPending();
  }

  recordDelivered(end: bigint): void {
    const { needsDelivery } = this;
    this.#delivered = end;
    if (needsDelivery) void this.#commitPending();
  }

  /** Records a seek: what was handled before it is void. */
  recordSeek(): void {
    this.seeks += 1;
    this.#handled = undefined;
    this.#committed = 0n;
    this.#changes.notify();
  }

  /** Commits no more. */
  end(error: TrunklineError): void {
    this.#ended ??= error;
    this.#stopped.abort();
    this.#pause.abort();
    clearTimeout(this.#timer);
    this.#changes.notify();
  }

  async #untilCommitted(position: bigint, seeks: number): Promise<void> {
    this.#waiting += 1;
    const refusals = this.#refusals;
    void this.#commitPending();
    try {
      while (position > this.#committed && seeks === this.seeks) {
        if (this.#ended) throw this.#ended;
        if (this.#failure && this.#refusals > refusals) throw this.#failure;
        await this.#changes.next();
      }
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Commits what is handled, call by call: at once what somebody waits for, and the rest in time. */
  async #commitPending(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#isCommitting) return;
    this.#isCommitting = true;
    do {
      const position = this.#pending;
      if (position === undefined) break;
      this.#handledCount = 0;
      await this.#call(position);
    } while (this.#waiting > 0 || this.#handledCount >= this.#everyMessages);
    this.#isCommitting = false;
    // Messages may have been handled or delivered during the call, which itself may have failed.
    if (this.#pending !== undefined)
      this.#timer ??= setTimeout(() => this.#commitPending(), EVERY_MS);
  }

  /** The position to commit next, if the broker accepts one that is not committed yet. */
  get #pending(): bigint | undefined {
    const position = this.needsDelivery ? this.#delivered : this.#position;
    const isOver = this.#ended || this.isEpochOver;
    return isOver || position <= this.#committed ? undefined : position;
  }

  async #call(position: bigint): Promise<void> {
    const { consumers, topic, consumerId } = this.#target;
    const { epoch, seeks } = this;
    try {
      const { signal } = this.#stopped;
      await consumers.commit({ topic, consumerId, epoch, position }, { signal });
    } catch (cause) {
      if (this.#ended) return;
      const error = TrunklineError.from(cause);
      if (error.code === Code.Aborted && !error.isTransient) return this.#endEpoch(epoch);
      // COMMIT_BEHIND: the position is further on already.
      if (error.reason !== "COMMIT_BEHIND") return await this.#pauseAfter(error);
    }
    this.#failures = 0;
    this.#failure = undefined;
    if (seeks === this.seeks) this.#recordCommitted(position);
  }

  /** Records that another stream has the lease, or that the frame that announces a seek is on its way. */
  #endEpoch(epoch: bigint): void {
    if (epoch === this.epoch) this.isEpochOver = true;
    this.#changes.notify();
  }

  /** Waits until the call is made again. A refusal that matters to the stream ends it as well. */
  async #pauseAfter(error: TrunklineError): Promise<void> {
    this.#failure = error;
    if (!error.isTransient) this.#refusals += 1;
    this.#changes.notify();
    const pauseMs = pauseBeforeRetryMs(this.#failures++, error);
    this.#pause = new AbortController();
    await sleep(pauseMs, undefined, { signal: this.#pause.signal }).catch(() => {});
  }

  #recordCommitted(position: bigint): void {
    if (position > this.#committed) this.#committed = position;
    this.#changes.notify();
  }
}
