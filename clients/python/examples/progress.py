"""Tracks how far a consumer has come in its topic, across streams."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.v1.consumer_pb2 import Attached, ConsumeResponse
from trunkline.v1.message_pb2 import Gap, Message

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Filters out the messages that the broker repeats after a break: those that were handled but
    not committed."""

    next_offset: int = 0
    epoch: int = 0

    def take(self, frame: ConsumeResponse) -> Sequence[Message]:
        """Returns the messages of a frame that have not been received before."""
        match frame.WhichOneof("event"):
            case "attached":
                self._attach(frame.attached)
            case "repositioned":
                self.next_offset = frame.repositioned.position
                self.epoch = frame.repositioned.epoch
            case "gap":
                self._skip(frame.gap)
            case "batch":
                new = [m for m in frame.batch.messages if m.offset >= self.next_offset]
                self.next_offset = max(self.next_offset, frame.batch.messages[-1].offset + 1)
                return new
        # Frames of other kinds, including unknown ones, only show that the stream is alive.
        return ()

    def _attach(self, attached: Attached) -> None:
        # After a seek, messages that were received before must be handled again.
        sought = attached.seek_epoch > self.epoch
        if sought or attached.position > self.next_offset:
            self.next_offset = attached.position
        self.epoch = attached.epoch

    def _skip(self, gap: Gap) -> None:
        log.warning("messages %d to %d were removed", gap.first_offset, gap.end_offset - 1)
        self.next_offset = max(self.next_offset, gap.end_offset)
