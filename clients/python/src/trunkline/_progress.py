"""How far a consumer has come: shared by the blocking one and that of asyncio."""

import logging
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from time import monotonic
from typing import Literal, TypedDict

from grpc import StatusCode

from trunkline._errors import Error, pause_after
from trunkline._limits import check_id, check_option
from trunkline.v1.consumer_pb2 import (
    COMMIT_MODE_MANUAL,
    ON_BUSY_TAKE_OVER,
    ON_BUSY_WAIT,
    Attached,
    CommitRequest,
    ConsumeRequest,
    ConsumeResponse,
    RegisterConsumerRequest,
)
from trunkline.v1.message_pb2 import LOG_EDGE_EARLIEST, LOG_EDGE_LATEST, Message

log = logging.getLogger("trunkline")

#: What is finished is committed after that many seconds, or that many messages.
COMMIT_INTERVAL = 0.1
COMMIT_MESSAGES = 10_000

#: How many seconds a commit may take, and closing waits for the last one.
COMMIT_TIMEOUT = 5.0

#: How many seconds a broker may take to open a stream, until its first frame.
OPEN_TIMEOUT = 30.0

Start = Literal["earliest", "latest"] | int | datetime


class ConsumerOptions(TypedDict, total=False):
    """The options of a consumer."""

    #: Where to begin if the consumer is not registered yet: at an end of the log, an offset or a
    #: time; "earliest" by default.
    start: Start
    #: Whether a message is committed when the next one is asked for, which is the default, or else
    #: when `commit` is called.
    auto_commit: bool
    #: Whether to end when nothing is left to read; by default, a consumer waits for new messages.
    until_caught_up: bool
    #: Whether to take the lease from its holder; by default, a consumer waits until it is free.
    take_over: bool
    #: The name by which others see the holder of the lease.
    client_name: str
    #: How many messages the broker sends beyond the committed position; unlimited by default.
    max_in_flight: int
    #: Seconds after which an idle stream shows that it is alive, 0.1 to 60; 15 by default. A stream
    #: that is silent for three times as long is opened again.
    heartbeat_interval: float


class Progress:
    """Which messages were delivered, finished and committed.

    After a break, the broker repeats what was not committed. What was delivered here before is left
    out then.
    """

    def __init__(
        self,
        topic: str,
        consumer_id: str,
        *,
        start: Start = "earliest",
        auto_commit: bool = True,
        until_caught_up: bool = False,
        take_over: bool = False,
        client_name: str = "",
        max_in_flight: int = 0,
        heartbeat_interval: float = 15.0,
    ) -> None:
        check_id("consumer_id", consumer_id)
        check_option("max_in_flight", max_in_flight, 0, 2**31 - 1)
        check_option("heartbeat_interval", heartbeat_interval, 0.1, 60)
        self.registration = _registration(topic, consumer_id, start)
        self.request = ConsumeRequest(
            topic=topic,
            consumer_id=consumer_id,
            commit_mode=COMMIT_MODE_MANUAL,
            on_busy=ON_BUSY_TAKE_OVER if take_over else ON_BUSY_WAIT,
            client_name=client_name,
            max_in_flight=max_in_flight,
        )
        self.request.heartbeat_interval.FromMilliseconds(round(heartbeat_interval * 1_000))
        #: The longest pause between two frames, and whether the first one is still to come.
        self._silence, self._is_opening = 3 * heartbeat_interval, True
        self.auto_commit, self._until_caught_up = auto_commit, until_caught_up
        self._urgent = max(1, min(COMMIT_MESSAGES, (max_in_flight or math.inf) // 2))
        #: The message that the caller has got last, and may not have finished.
        self.in_hand: Message | None = None
        self.closed = self._caught_up = False
        self._error: Error | None = None
        #: The epoch in which the last message was delivered, and 0 before the first stream.
        self.epoch = 0
        self._failures = 0
        #: Commits of this epoch are over: it has ended.
        self._ended_epoch = -1
        #: Why the last commit failed, and how many failed in a row.
        self._refusal: Error | None = None
        self._commit_failures = 0
        #: How many seconds to wait before the next commit, and when it may be.
        self.commit_pause = self._commit_at = 0.0
        #: Offsets, each behind the last message that was delivered here, delivered by the current
        #: stream (no commit may exceed it), finished by the caller, committed.
        self._delivered = self._stream_end = self._finished = self._committed = 0
        #: Below this offset, messages may have been received before a seek. Only these ones were
        #: received after it: their ids by their offsets, as far as they are not committed.
        self._sought_end = 0
        self._since_seek: dict[int, int] = {}

    @property
    def silence(self) -> float:
        """How many seconds to wait for the next frame."""
        return OPEN_TIMEOUT if self._is_opening else self._silence

    def begin_stream(self) -> ConsumeRequest:
        """The request of a new stream."""
        self._is_opening = True
        return self.request

    def observe(self, frame: ConsumeResponse) -> Iterable[Message]:
        """Takes the next frame; returns the messages that were not delivered before."""
        self._is_opening = False
        match frame.WhichOneof("event"):
            case "batch":
                self._failures = 0
                return self._receive(frame.batch.messages)
            case "attached":
                self._attach(frame.attached)
            case "repositioned":
                self._seek(frame.repositioned.position)
                self._begin_epoch(frame.repositioned.epoch)
            case "gap":
                first, end = frame.gap.first_offset, frame.gap.end_offset
                log.warning("messages %d to %d were removed", first, end - 1)
                self._advance(end)
            case "standby":
                log.info("%s holds the lease; waiting", frame.standby.holder)
            case "heartbeat":
                self._failures = 0
            case "caught_up":
                self._caught_up = self._until_caught_up
        return ()

    def _receive(self, messages: Sequence[Message]) -> Sequence[Message]:
        known = self._delivered
        self._advance(messages[-1].offset + 1)
        if messages[0].offset < known:
            messages = [message for message in messages if message.offset >= known]
        if known < self._sought_end:
            messages = list(messages)
            again = (message for message in messages if message.offset < self._sought_end)
            self._since_seek.update((message.offset, id(message)) for message in again)
        return messages

    def _advance(self, end: int) -> None:
        self._stream_end = end
        self._delivered = max(self._delivered, end)

    def _attach(self, attached: Attached) -> None:
        # Epochs and offsets start again when the consumer or the topic is made again.
        is_new = attached.epoch <= self.epoch or attached.head < self._delivered
        if is_new or attached.seek_epoch > self.epoch:
            self._seek(attached.position)
        self._begin_epoch(attached.epoch)
        # Another stream may have read on.
        self._advance(attached.position)
        self._committed = max(self._committed, attached.position)
        # The take-over is done: if another stream takes the lease later, that is its right.
        self.request.on_busy = ON_BUSY_WAIT

    def _seek(self, position: int) -> None:
        """Messages that were delivered before are delivered, and must be finished, again."""
        self._sought_end = max(self._sought_end, self._delivered)
        self._since_seek.clear()
        self._delivered = self._stream_end = self._finished = self._committed = position

    def _begin_epoch(self, epoch: int) -> None:
        """What is finished may be committed again, at once."""
        self.epoch, self._refusal = epoch, None
        self._commit_failures, self._commit_at = 0, 0.0

    def proceed(self) -> bool:
        """Records that the caller asks for more; returns whether more may follow."""
        self.release(True)
        if self._error:
            raise self._error.with_traceback(None)
        return not (self.closed or self._caught_up)

    def release(self, finished: bool) -> None:
        """Records that the caller no longer has a message, and whether it has finished it."""
        if self.auto_commit and self.in_hand:
            self._finished = max(self._finished, self.in_hand.offset + finished)
        self.in_hand = None

    def finish(self, message: Message) -> None:
        """Records that the caller has finished a message and all before it."""
        if message.offset < self._sought_end:
            # No two objects that exist at the same time have the same id.
            is_received = self._since_seek.get(message.offset) == id(message)
        else:
            is_received = message.offset < self._delivered
        if is_received:
            self._finished = max(self._finished, message.offset + 1)

    @property
    def is_urgent(self) -> bool:
        return self._finished - self._committed >= self._urgent

    def next_commit(self) -> CommitRequest | None:
        """What is to be committed, if anything is."""
        if self.auto_commit and (message := self.in_hand):
            self._finished = max(self._finished, message.offset)
        position = min(self._finished, self._stream_end)
        if position <= self._committed or self.epoch == self._ended_epoch:
            return None
        if monotonic() < self._commit_at and not self.closed:
            return None
        topic, consumer_id = self.request.topic, self.request.consumer_id
        return CommitRequest(
            topic=topic, consumer_id=consumer_id, epoch=self.epoch, position=position
        )

    def record_commit(self, request: CommitRequest, error: Error | None) -> bool:
        """Records the answer to a commit; returns whether it is to be tried again soon."""
        is_current = request.epoch == self.epoch
        if error is None or error.reason == "COMMIT_BEHIND":
            self._refusal, self._commit_failures = None, 0
            if is_current:
                self._record_committed(request.position)
            return False
        if not is_current:
            return True
        self._refusal = error
        if error.code is StatusCode.ABORTED:
            # The stream says why: another one has the lease, or a seek moved the position.
            self._ended_epoch = request.epoch
            return False
        self.commit_pause = pause_after(self._commit_failures, error)
        self._commit_failures += 1
        self._commit_at = monotonic() + self.commit_pause
        log.warning("%s; committing again in %.1f s", error, self.commit_pause)
        return error.may_pass

    @property
    def awaits_epoch(self) -> bool:
        """Whether something finished can be committed only once the stream begins another epoch."""
        has_ended = self.epoch == self._ended_epoch
        return has_ended and self._finished > self._committed and not self._error

    def _record_committed(self, position: int) -> None:
        self._committed = max(self._committed, position)
        while self._since_seek and (first := next(iter(self._since_seek))) < self._committed:
            del self._since_seek[first]

    def check_refused(self) -> None:
        """Raises the error with which the broker refuses commits for now, if it does."""
        error = self._refusal
        if error and not error.may_pass and error.code is not StatusCode.ABORTED:
            raise error.with_traceback(None)

    def check_committed(self) -> None:
        """Raises an error if something finished is not committed, and the caller does not know."""
        if self._finished <= self._committed:
            return
        error = self._refusal
        if self._error and (not error or error.code in (StatusCode.ABORTED, self._error.code)):
            return
        error = error or Error.lost("finished messages are not committed, and will come again")
        raise error.with_traceback(None)

    def pause_after(self, error: Error) -> float:
        """Seconds until the next stream after one that ended with this error; raises it if it is
        final."""
        if not error.may_pass and error.reason != "LEASE_LOST":
            if not self.closed:
                # Otherwise the caller does not learn of it.
                self._error = error
            raise error
        pause = pause_after(self._failures, error)
        self._failures += 1
        log.warning("%s; consuming again in %.1f s", error, pause)
        return pause


def _registration(topic: str, consumer_id: str, start: Start) -> RegisterConsumerRequest:
    request = RegisterConsumerRequest(topic=topic, consumer_id=consumer_id, if_missing=True)
    if isinstance(start, datetime) and start.tzinfo:
        request.time.FromDatetime(start)
    elif isinstance(start, int):
        request.offset = start
    elif start in ("earliest", "latest"):
        request.edge = LOG_EDGE_LATEST if start == "latest" else LOG_EDGE_EARLIEST
    else:
        expected = "earliest, latest, an offset, or a time with a time zone"
        raise Error.invalid("start", f"is {start!r}, and must be {expected}")
    return request
