// What becomes of a message.

import type { TrunklineError } from "./error.js";

/** How the messages of a request end: they are stored together, or fail together. */
export class Outcome {
  /** The offset of the first message. */
  readonly firstOffset: Promise<bigint>;
  error: TrunklineError | undefined;
  /** How many messages it is about, and of how many somebody waits for the receipt, and so learns of the
   * error. */
  messages = 0;
  observed = 0;
  store!: (firstOffset: bigint) => void;
  #reject!: (error: TrunklineError) => void;

  constructor() {
    this.firstOffset = new Promise((resolve, reject) => {
      this.store = resolve;
      this.#reject = reject;
    });
    // An error that nobody waits for comes out of the producer's flush.
    this.firstOffset.catch(() => {});
  }

  get isObserved(): boolean {
    return this.observed === this.messages;
  }

  fail(error: TrunklineError): void {
    this.error = error;
    this.#reject(error);
  }
}

/** The promise of a message's offset, fulfilled once the message is on disk.
 *
 * If it is rejected and nobody waits for it, nothing happens to the process: the error comes out of the
 * producer's `flush` or `close`. */
export class Receipt implements Promise<bigint> {
  readonly #outcome: Outcome;
  readonly #index: number;
  readonly #accept: (end: number) => Promise<void>;
  readonly #end: number;
  #isObserved = false;

  /** @internal Of the next message of an outcome. `accept` waits until the producer has room for
   * everything before `end`. */
  constructor(outcome: Outcome, accept: (end: number) => Promise<void>, end: number) {
    this.#outcome = outcome;
    this.#index = outcome.messages++;
    this.#accept = accept;
    this.#end = end;
  }

  /** Fulfilled once the producer has room for the message. A caller who publishes message after message
   * waits for this, so that they do not fill the memory. */
  get accepted(): Promise<void> {
    const { error } = this.#outcome;
    if (!error) return this.#accept(this.#end);
    this.#observe();
    return Promise.reject(error);
  }

  then<A = bigint, B = never>(
    onStored?: ((offset: bigint) => A | PromiseLike<A>) | null,
    onFailed?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#observe();
    const stored = onStored ?? ((offset) => offset as A);
    return this.#outcome.firstOffset.then((first) => stored(first + BigInt(this.#index)), onFailed);
  }

  catch<B = never>(
    onFailed?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<bigint | B> {
    return this.then(null, onFailed);
  }

  finally(onEnded?: (() => void) | null): Promise<bigint> {
    return this.then().finally(onEnded);
  }

  /** Records that somebody learns of an error. */
  #observe(): void {
    if (!this.#isObserved) this.#outcome.observed += 1;
    this.#isObserved = true;
  }

  get [Symbol.toStringTag](): string {
    return "Receipt";
  }
}
