// Tracks how far a consumer has come in its topic, across streams.

import type { Attached, ConsumeResponse } from "../gen/trunkline/v1/consumer_pb.js";
import type { Message } from "../gen/trunkline/v1/message_pb.js";

/** Filters out the messages that the broker repeats after a break: those that were handled but not
 * committed. */
export class Progress {
  nextOffset = 0n;
  epoch = 0n;

  /** Returns the messages of a frame that have not been received before. */
  take({ event }: ConsumeResponse): Message[] {
    switch (event.case) {
      case "attached":
        this.#attach(event.value);
        return [];
      case "repositioned":
        this.nextOffset = event.value.position;
        this.epoch = event.value.epoch;
        return [];
      case "gap": {
        const { firstOffset, endOffset } = event.value;
        console.warn(`messages ${firstOffset} to ${endOffset - 1n} were removed`);
        this.#reach(endOffset);
        return [];
      }
      case "batch": {
        const fresh = event.value.messages.filter(({ offset }) => offset >= this.nextOffset);
        for (const { offset } of fresh) this.#reach(offset + 1n);
        return fresh;
      }
      default:
        // Frames of other kinds, including unknown ones, only show that the stream is alive.
        return [];
    }
  }

  #attach({ position, epoch, seekEpoch }: Attached): void {
    // After a seek, messages that were received before must be handled again.
    if (seekEpoch > this.epoch) this.nextOffset = position;
    this.#reach(position);
    this.epoch = epoch;
  }

  #reach(offset: bigint): void {
    if (offset > this.nextOffset) this.nextOffset = offset;
  }
}
