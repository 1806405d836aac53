// Keeps a stream open: after a break it is opened again, on a connection of its own.

import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { Connection, type Endpoint } from "./connection.js";
import { TrunklineError } from "./error.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** Who reads the streams. */
export interface Reader {
  /** Waits until a stream is needed. */
  ready(): Promise<void>;
  /** Reads one stream to its end. */
  read(transport: Transport, signal: AbortSignal): Promise<void>;
  /** Whether the broker owes a sign of life. */
  isWaiting(): boolean;
  /** Hears of a break. Returns how long to wait before the next try, or throws why there is none. */
  recover(error: TrunklineError, pauseMs: number): number;
  /** Hears why no more streams are read. */
  fail(error: TrunklineError): void;
}

/** How long a broker may be silent until it is taken for lost. */
export interface Patience {
  /** Before the first sign of life on a stream. */
  openMs: number;
  /** After it. */
  silenceMs: number;
}

/** Has one stream after the other read, until it is stopped or an error is final. */
export class ResumingStream {
  readonly #endpoint: Endpoint;
  readonly #reader: Reader;
  readonly #patience: Patience;
  readonly #stopped = new AbortController();
  readonly #ended: Promise<void>;
  #connection: Connection | undefined;
  #watch: Watch | undefined;
  #failures = 0;

  constructor(endpoint: Endpoint, reader: Reader, patience: Patience) {
    this.#endpoint = endpoint;
    this.#reader = reader;
    this.#patience = patience;
    this.#ended = this.#run().catch((error) => reader.fail(TrunklineError.from(error)));
  }

  /** Records a sign of life; and that the broker does its work, so that pauses begin short again. */
  recordLife(works: boolean): void {
    this.#watch?.recordLife(this.#patience.silenceMs);
    if (works) this.#failures = 0;
  }

  stop(): Promise<void> {
    this.#stopped.abort();
    this.#connection?.close();
    return this.#ended;
  }

  async #run(): Promise<void> {
    for (;;) {
      await this.#reader.ready();
      if (this.#stopped.signal.aborted) return;
      const connection = new Connection(this.#endpoint);
      this.#connection = connection;
      try {
        await this.#read(connection);
      } catch (cause) {
        if (this.#stopped.signal.aborted) return;
        await this.#recover(connection, cause);
      }
    }
  }

  async #read(connection: Connection): Promise<never> {
    const isWaiting = () => this.#reader.isWaiting();
    const watch = new Watch(isWaiting, () => connection.close("the broker is silent"));
    watch.start(this.#patience.openMs);
    this.#watch = watch;
    try {
      await this.#reader.read(connection.transport, connection.signal);
      throw new ConnectError("the broker closed the stream", Code.Unavailable);
    } finally {
      watch.stop();
      this.#watch = undefined;
      connection.close();
    }
  }

  async #recover(connection: Connection, cause: unknown): Promise<void> {
    // Anything else is a fault of this package, or of a function that it was given.
    if (!(cause instanceof ConnectError || cause instanceof TrunklineError)) throw cause;
    const error = TrunklineError.from(cause);
    const isRoutine = error.isTransient || error.reason === "LEASE_LOST";
    if (!isRoutine && !(await connection.hasNewToken(error))) throw error;
    const pauseMs = this.#reader.recover(error, pauseBeforeRetryMs(this.#failures, error));
    this.#failures += 1;
    await sleep(pauseMs, undefined, { signal: this.#stopped.signal }).catch(() => {});
  }
}

/** Notices a broker that owes a sign of life for too long.
 *
 * It counts thirds of that time: if this process itself was suspended or busy, that is one. */
class Watch {
  readonly #isWaiting: () => boolean;
  readonly #onSilence: () => void;
  #silenceMs = 0;
  #silentThirds = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(isWaiting: () => boolean, onSilence: () => void) {
    this.#isWaiting = isWaiting;
    this.#onSilence = onSilence;
  }

  start(silenceMs: number): void {
    this.stop();
    this.#silenceMs = silenceMs;
    this.#silentThirds = 0;
    this.#timer = setInterval(() => {
      this.#silentThirds = this.#isWaiting() ? this.#silentThirds + 1 : 0;
      if (this.#silentThirds >= 3) this.#onSilence();
    }, silenceMs / 3);
  }

  /** Records a sign of life. From now on the broker may be silent for that long. */
  recordLife(silenceMs: number): void {
    this.#silentThirds = 0;
    if (silenceMs !== this.#silenceMs) this.start(silenceMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** How long to wait after so many failures in a row: a time that doubles, shortened at random by up to
 * half, so that clients do not all return at once; and as long as the broker asks for. */
export function pauseBeforeRetryMs(failures: number, { retryDelayMs = 0 }: TrunklineError): number {
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return Math.max(grown * (0.5 + Math.random() / 2), Math.min(retryDelayMs, LONGEST_PAUSE_MS));
}
