// What a consumer has had of its topic, whatever streams it came by.

import type { Attached, ConsumeResponse } from "../gen/trunkline/v1/consumer_pb.js";
import type { Message } from "../gen/trunkline/v1/message_pb.js";

/** Tells the new messages of a frame from those that the broker repeats after a break, which are
 * those that were had but not committed. */
export class Progress {
  nextOffset = 0n;
  epoch = 0n;

  /** The messages of a frame that were not had before. */
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
        console.warn(`retention removed the messages ${firstOffset} to ${endOffset - 1n}`);
        this.#reach(endOffset);
        return [];
      }
      case "batch": {
        const fresh = event.value.messages.filter(({ offset }) => offset >= this.nextOffset);
        for (const { offset } of fresh) this.#reach(offset + 1n);
        return fresh;
      }
      default:
        // A sign of life, also where the kind of frame is not known here yet.
        return [];
    }
  }

  #attach({ position, epoch, seekEpoch }: Attached): void {
    // After a seek, also what was had before is to be taken again.
    if (seekEpoch > this.epoch) this.nextOffset = position;
    this.#reach(position);
    this.epoch = epoch;
  }

  #reach(offset: bigint): void {
    if (offset > this.nextOffset) this.nextOffset = offset;
  }
}
