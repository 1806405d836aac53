// Waiting for a change of state.

/** Wakes everybody who waits for a change. Whoever wakes looks at the state again. */
export class Changes {
  #waiting: (() => void)[] = [];

  /** Waits for the next change. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  notify(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
