"""What a consumer has had of its topic, whatever streams it came by."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.v1.consumer_pb2 import Attached, ConsumeResponse
from trunkline.v1.message_pb2 import Gap, Message

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Tells the new messages of a frame from those that the broker repeats after a break, which
    are those that were had but not committed."""

    next_offset: int = 0
    epoch: int = 0

    def take(self, frame: ConsumeResponse) -> Sequence[Message]:
        """The messages of a frame that were not had before."""
        match frame.WhichOneof("event"):
            case "attached":
                self._attach(frame.attached)
            case "repositioned":
                self.next_offset = frame.repositioned.position
                self.epoch = frame.repositioned.epoch
            case "gap":
                self._pass(frame.gap)
            case "batch":
                new = [m for m in frame.batch.messages if m.offset >= self.next_offset]
                self.next_offset = max(self.next_offset, frame.batch.messages[-1].offset + 1)
                return new
        # Other frames are signs of life, also those of kinds that are not known here yet.
        return ()

    def _attach(self, attached: Attached) -> None:
        # After a seek, also what was had before is to be taken again.
        sought = attached.seek_epoch > self.epoch
        if sought or attached.position > self.next_offset:
            self.next_offset = attached.position
        self.epoch = attached.epoch

    def _pass(self, gap: Gap) -> None:
        # The field's name is a keyword of Python.
        log.warning("retention removed the messages %d to %d", gap.first_offset, gap.end_offset - 1)
        self.next_offset = max(self.next_offset, gap.end_offset)
