// A consumer: the messages of a topic in order, through one stream after the other.
//
// After a break the broker repeats what was not committed. The consumer skips what it has read before,
// so that its caller gets each message once, unless a seek moves the position.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, createClient, type Transport } from "@connectrpc/connect";
import * as v1 from "../gen/trunkline/v1/consumer_pb.js";
import type { Message as Stored } from "../gen/trunkline/v1/message_pb.js";
import { Changes } from "./changes.js";
import { Commits, type CommitTarget } from "./commits.js";
import type { Endpoint } from "./connection.js";
import { TrunklineError } from "./error.js";
import { Message } from "./message.js";
import { checkedNumbers } from "./options.js";
import { type Reader, ResumingStream } from "./stream.js";

/** How many frames, each of at most 1 MiB, are read ahead. Beyond that the broker waits. */
const READ_AHEAD = 2;

/** How long a broker may take until a stream's first frame. */
const OPEN_TIMEOUT_MS = 30_000;

/** How long closing waits for the last commit. */
const CLOSE_TIMEOUT_MS = 5_000;

const LIMITS = {
  heartbeatIntervalMs: [15_000, 100, 60_000],
  maxInFlight: [0, 0, 2_147_483_647],
} as const;

/** What happens on a consumer's stream besides messages. */
export type ConsumerEvent =
  /** The consumer holds the lease; its messages follow from this offset. */
  | { type: "attached"; position: bigint }
  /** Another consumer holds the lease; this one waits for it. */
  | { type: "standby"; holder: string }
  /** A seek has moved the position; messages follow from there. */
  | { type: "repositioned"; position: bigint }
  /** Retention removed messages before they were read: from the first offset to before the end. */
  | { type: "gap"; firstOffset: bigint; endOffset: bigint }
  /** The broker was lost, or the lease; the consumer tries again after a pause. */
  | { type: "broken"; error: TrunklineError; pauseMs: number };

export interface ConsumerOptions {
  /** Where a consumer that is not registered yet begins; at the earliest message by default. */
  start?: "earliest" | "latest" | bigint | Date;
  /** Whether a message counts as handled when the next one is asked for, which is the default, or when
   * `commit` is called. */
  commit?: "auto" | "manual";
  /** Whether the consumer ends when nothing is left to read. */
  untilCaughtUp?: boolean;
  /** Whether to take the lease from its holder, instead of waiting for it. */
  takeOver?: boolean;
  /** The name by which others see the holder of the lease. */
  clientName?: string;
  /** How many messages the broker delivers beyond the committed position; 0, the default, for no limit. */
  maxInFlight?: number;
  /** How often an idle stream sends a sign of life, 100 ms to 60 s; 15 s by default. A stream that is
   * silent for three times as long is opened again. */
  heartbeatIntervalMs?: number;
  /** Hears of what happens besides messages. */
  onEvent?: (event: ConsumerEvent) => void;
}

/** Messages that arrived together, and the epoch in which they did. */
interface Frame {
  messages: Stored[];
  epoch: bigint;
}

const NO_FRAME: Frame = { messages: [], epoch: 0n };

/** Reads one topic. It is an async iterator, and its own iterable. */
export class Consumer implements AsyncIterableIterator<Message> {
  readonly #target: CommitTarget;
  readonly #options: ConsumerOptions;
  readonly #heartbeatIntervalMs: number;
  readonly #changes = new Changes();
  readonly #commits: Commits;
  readonly #stream: ResumingStream;
  /** What is read ahead, frame by frame. */
  #frames: Frame[] = [];
  /** The frame whose messages are handed out, and the next one of them. */
  #frame = NO_FRAME;
  #index = 0;
  /** The message that the caller has, if it is handled when the next one is asked for. */
  #handedOut: Message | undefined;
  /** The offset of the next message to read. */
  #nextOffset = 0n;
  #takesOver: boolean;
  /** Whether the stream has the lease. */
  #isAttached = false;
  /** Whether the stream waits for the caller. */
  #isFull = false;
  /** Whether messages are still wanted: not once it has caught up, or is closed. */
  #isWanted = true;
  #failure: TrunklineError | undefined;
  #isFailureThrown = false;
  #closed: Promise<void> | undefined;

  /** @internal */
  constructor(
    endpoint: Endpoint,
    target: Omit<CommitTarget, "maxInFlight">,
    options: ConsumerOptions,
  ) {
    const { heartbeatIntervalMs, maxInFlight } = Consumer.checkedLimits(options);
    this.#heartbeatIntervalMs = heartbeatIntervalMs;
    this.#target = { ...target, maxInFlight };
    this.#options = options;
    this.#takesOver = options.takeOver ?? false;
    this.#commits = new Commits(this.#target, this.#changes);
    this.#stream = new ResumingStream(endpoint, this.#reader, {
      openMs: OPEN_TIMEOUT_MS,
      silenceMs: 3 * heartbeatIntervalMs,
    });
  }

  /** @internal Fills in the defaults, and refuses limits that no consumer can keep. */
  static checkedLimits(options: ConsumerOptions) {
    return checkedNumbers(LIMITS, options);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next message, when there is one. Throws if the topic or the consumer is gone, if another
   * consumer has taken the lease over, and for other reasons that a retry cannot remedy. */
  next(): Promise<IteratorResult<Message, undefined>> {
    if (this.#handedOut) this.#commits.handle(this.#handedOut);
    this.#handedOut = undefined;
    const message = this.#take();
    return message ? Promise.resolve({ done: false, value: message }) : this.#nextLater();
  }

  /** Called when a loop is left. Closes a consumer that commits by itself: the message that its caller
   * had then is not committed. With commits by hand it stays open. */
  async return(): Promise<IteratorResult<Message, undefined>> {
    if (this.#commitsByItself) await this.close();
    return { done: true, value: undefined };
  }

  /** Commits a message, and all before it. Resolves when the position is stored; at once for a message
   * from before a seek, which has no effect. If the broker refuses it, it is rejected, and the position
   * is committed later if the broker accepts it then. */
  commit(message: Message): Promise<void> {
    return this.#commits.commit(message);
  }

  /** Commits what is handled, ends the stream, and so frees the lease. Waits for 5 s at most. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #commitsByItself(): boolean {
    return this.#options.commit !== "manual";
  }

  /** The next message that is read already. */
  #take(): Message | undefined {
    if (this.#index === this.#frame.messages.length) {
      const frame = this.#frames.shift();
      this.#frame = frame ?? NO_FRAME;
      this.#index = 0;
      // There is room for another frame. Without one, callers who wait would only wake each other.
      if (frame) this.#changes.notify();
    }
    const { messages, epoch } = this.#frame;
    const stored = messages[this.#index];
    if (!stored) return undefined;
    this.#index += 1;
    const message = new Message(stored, epoch, this.#commits.seeks);
    if (this.#commitsByItself) this.#handedOut = message;
    return message;
  }

  async #nextLater(): Promise<IteratorResult<Message, undefined>> {
    for (;;) {
      if (this.#failure) {
        this.#isFailureThrown = true;
        throw this.#failure;
      }
      if (!this.#isWanted) {
        if (this.#commitsByItself) await this.close();
        return { done: true, value: undefined };
      }
      await this.#changes.next();
      const message = this.#take();
      if (message) return { done: false, value: message };
    }
  }

  async #close(): Promise<void> {
    this.#isWanted = false;
    this.#drop();
    // The stream stays open and keeps the lease meanwhile, so that nobody else moves the position.
    const timer = setTimeout(() => {
      const { failure } = this.#commits;
      const late = "messages that were handled could not be committed, and will be delivered again";
      const message = failure ? `${late}: ${failure.message}` : late;
      this.#commits.end(new TrunklineError(message, Code.Unavailable, { cause: failure }));
    }, CLOSE_TIMEOUT_MS);
    const error = await this.#commits.finish().catch((reason: TrunklineError) => reason);
    clearTimeout(timer);
    this.#commits.end(new TrunklineError("the consumer is closed", Code.FailedPrecondition));
    await this.#stream.stop();
    const reason = this.#failure ?? error;
    if (reason && !this.#isFailureThrown) throw reason;
  }

  #drop(): void {
    this.#frames = [];
    this.#frame = NO_FRAME;
    this.#index = 0;
    this.#handedOut = undefined;
    this.#changes.notify();
  }

  #fail(error: TrunklineError): void {
    this.#failure ??= error;
    this.#drop();
    this.#commits.end(error);
    void this.#stream.stop();
  }

  readonly #reader: Reader = {
    ready: async () => {},
    read: (transport, signal) => this.#read(transport, signal),
    isWaiting: () => !this.#isFull,
    recover: (error, pauseMs) => {
      this.#options.onEvent?.({ type: "broken", error, pauseMs });
      return pauseMs;
    },
    fail: (error) => this.#fail(error),
  };

  async #read(transport: Transport, signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#changes.notify());
    this.#isAttached = false;
    const { topic, consumerId, maxInFlight } = this.#target;
    const request = {
      topic,
      consumerId,
      maxInFlight,
      commitMode: v1.CommitMode.MANUAL,
      onBusy: this.#takesOver ? v1.OnBusy.TAKE_OVER : v1.OnBusy.WAIT,
      clientName: this.#options.clientName ?? "",
      heartbeatInterval: durationFromMs(this.#heartbeatIntervalMs),
    };
    const consumers = createClient(v1.ConsumerService, transport);
    for await (const frame of consumers.consume(request, { signal })) {
      const { case: kind } = frame.event;
      this.#stream.recordLife(kind === "batch" || kind === "heartbeat");
      this.#observe(frame);
      this.#isFull = true;
      while (!this.#mayReadOn() && !signal.aborted) await this.#changes.next();
      this.#isFull = false;
    }
  }

  /** Whether there is room for another frame, or something else to learn from the stream. */
  #mayReadOn(): boolean {
    if (!this.#isAttached || this.#commits.isEpochOver) return true;
    return this.#isWanted ? this.#frames.length < READ_AHEAD : this.#commits.needsDelivery;
  }

  #observe({ event }: v1.ConsumeResponse): void {
    const { onEvent } = this.#options;
    switch (event.case) {
      case "attached":
        return this.#attach(event.value);
      case "repositioned":
        this.#seek(event.value.position);
        return this.#commits.beginEpoch(event.value.epoch, event.value.position);
      case "batch":
        return this.#enqueue(event.value.messages);
      case "gap": {
        const { firstOffset, endOffset } = event.value;
        this.#commits.recordDelivered(endOffset);
        if (endOffset <= this.#nextOffset) return;
        this.#nextOffset = endOffset;
        return onEvent?.({ type: "gap", firstOffset, endOffset });
      }
      case "standby":
        return onEvent?.({ type: "standby", holder: event.value.holder });
      case "caughtUp":
        if (this.#options.untilCaughtUp) this.#isWanted = false;
        return this.#changes.notify();
      default:
      // A heartbeat, or a kind of frame that is newer than this package.
    }
  }

  #attach({ position, head, epoch, seekEpoch }: v1.Attached): void {
    const last = this.#commits.epoch;
    // Epochs or offsets begin again when the consumer is registered, or the topic created, again.
    const isOtherLog = epoch <= last || head < this.#nextOffset;
    if (last > 0n && (seekEpoch > last || isOtherLog)) this.#seek(position);
    // Another consumer may have read on meanwhile.
    if (position > this.#nextOffset) this.#nextOffset = position;
    this.#commits.beginEpoch(epoch, position);
    this.#isAttached = true;
    // If another consumer takes the lease later, this one must not take it back.
    this.#takesOver = false;
    this.#options.onEvent?.({ type: "attached", position });
  }

  /** Drops what was read before a seek. */
  #seek(position: bigint): void {
    this.#drop();
    this.#commits.recordSeek();
    this.#nextOffset = position;
    this.#options.onEvent?.({ type: "repositioned", position });
  }

  #enqueue(messages: Stored[]): void {
    const [first, last] = [messages[0], messages.at(-1)];
    if (!first || !last) return;
    this.#commits.recordDelivered(last.offset + 1n);
    if (!this.#isWanted || last.offset < this.#nextOffset) return;
    const isNew = first.offset >= this.#nextOffset;
    this.#frames.push({
      messages: isNew ? messages : messages.filter(({ offset }) => offset >= this.#nextOffset),
      epoch: this.#commits.epoch,
    });
    this.#nextOffset = last.offset + 1n;
    this.#changes.notify();
  }
}
