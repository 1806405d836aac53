"""What a producer has to send, and has sent: shared by the blocking one and that of asyncio."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypedDict, TypeVar

from grpc import StatusCode

from trunkline._errors import Error, pause_after
from trunkline._limits import check_option
from trunkline.v1.message_pb2 import NewMessage
from trunkline.v1.producer_pb2 import Producer, PublishStreamRequest, PublishStreamResponse

MIB = 1_048_576

#: How many requests may be unanswered. The broker recognises at least the last eight of a producer
#: when they are sent again.
WINDOW = 8

#: A broker that owes an answer for this many seconds is taken for lost.
ANSWER_TIMEOUT = 30.0

#: A `with` block that fails waits for answers for this many seconds at most.
FAILED_FLUSH_TIMEOUT = 5.0

CLOSED = Error(StatusCode.FAILED_PRECONDITION, "the producer is closed")

#: The offset of a batch's first message, or why the batch was not stored. It is not the exception of
#: the future, which would be logged if nobody asks for it.
Outcome = int | Error
Future = TypeVar("Future", futures.Future[Outcome], asyncio.Future[Outcome])


class ProducerOptions(TypedDict, total=False):
    """A message counts for its bytes plus 100, and 100 more for each header."""

    #: Seconds that a message may wait for others to share its request, up to 600; 0.005 by default.
    #: It never waits while no request is unanswered.
    linger: float
    #: How many messages a request may hold, up to 10,000; 4,000 by default.
    max_batch_messages: int
    #: How many bytes of messages a request may hold, up to 8 MiB; 1 MiB by default. A larger message
    #: gets a request of its own.
    max_batch_bytes: int
    #: How many bytes of messages may be unanswered, 2 MiB to 1 GiB; 32 MiB by default. Publishing
    #: waits for room.
    max_buffered_bytes: int
    #: Seconds without progress after which unanswered messages fail, up to a day; 60 by default.
    retry_for: float


@dataclass(slots=True)
class Batch(Generic[Future]):
    """The messages of one request."""

    request: PublishStreamRequest
    #: Adds a message to the request.
    add: Callable[..., NewMessage]
    outcome: Future
    began: float
    #: The room that it takes up, and how much of that is left.
    cost: int
    room: int
    count: int = 0


class Outbox(Generic[Future]):
    """Gathers messages in requests, numbers these, and keeps them until they are answered.

    After a break, a new stream begins with what was not answered. It keeps its sequences, so that
    the broker stores it once.
    """

    def __init__(
        self,
        new_outcome: Callable[[], Future],
        notify: Callable[[], None],
        *,
        linger: float = 0.005,
        max_batch_messages: int = 4_000,
        max_batch_bytes: int = MIB,
        max_buffered_bytes: int = 32 * MIB,
        retry_for: float = 60.0,
    ) -> None:
        check_option("linger", linger, 0, 600)
        check_option("max_batch_messages", max_batch_messages, 1, 10_000)
        check_option("max_batch_bytes", max_batch_bytes, 1, 8 * MIB)
        check_option("max_buffered_bytes", max_buffered_bytes, 2 * MIB, 1_024 * MIB)
        check_option("retry_for", retry_for, 0, 86_400)
        self._new_outcome: Callable[[], Future] = new_outcome
        self._notify, self._linger, self._retry_for = notify, linger, retry_for
        self._max_messages, self._max_bytes = max_batch_messages, max_batch_bytes
        self._max_buffered = max_buffered_bytes
        #: As it is registered.
        self.producer = Producer()
        #: Not sent yet.
        self._gathered: deque[Batch[Future]] = deque()
        #: The last one of them, if it has room.
        self._open: Batch[Future] | None = None
        self._unanswered: deque[Batch[Future]] = deque()
        #: How many of the unanswered ones were sent on the current stream, and on one that broke.
        self._sent = self._lost = 0
        #: The number of the current stream, and whether a broker has accepted it.
        self.stream = 0
        self._accepted = False
        self._buffered = self._failures = 0
        self._flushing = False
        self._progress = self._owed_since = monotonic()
        #: Why the producer has ended, and the error of messages that were sent without an answer, if
        #: there were any.
        self.error: Error | None = None
        self._unknown: Error | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._unanswered or self._gathered)

    def check(self) -> None:
        """Raises the error that has ended the producer, if one has."""
        if self.error:
            raise self.error.with_traceback(None)

    def check_stored(self) -> None:
        """Raises why messages are not stored, or may not be, if the producer has ended."""
        if self._unknown:
            raise self._unknown.with_traceback(None)
        self.check()

    def add(
        self, payload: bytes, key: bytes | None, headers: Mapping[str, str] | None, cost: int
    ) -> tuple[Future, int] | None:
        """Adds a message; returns the outcome of its batch, and its index there. None if there is no
        room for now."""
        batch = self._open
        if not batch or cost > batch.room:
            batch = self._begin_batch(cost)
        if not batch:
            return None
        if key is None and headers is None:
            # Most messages are so, and each field that is named takes time.
            batch.add(payload=payload)
        else:
            batch.add(payload=payload, key=key, headers=headers)
        batch.room -= cost
        index = batch.count
        batch.count = count = index + 1
        if count == self._max_messages:
            self._close_batch()
        return batch.outcome, index

    def _begin_batch(self, cost: int) -> Batch[Future] | None:
        """Begins a batch, and takes room for it, if there is room for its first message."""
        self.check()
        self._close_batch()
        free = self._max_buffered - self._buffered
        if cost > free:
            return None
        room = min(free, max(cost, self._max_bytes))
        request = PublishStreamRequest(
            topic=self.producer.topic,
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
        )
        batch = Batch(request, request.messages.add, self._new_outcome(), monotonic(), room, room)
        self._open = batch
        self._buffered += room
        self._gathered.append(batch)
        self._notify()
        return batch

    def _close_batch(self) -> None:
        """Lets nothing be added to the open batch, and gives back the room that it did not need."""
        if batch := self._open:
            self._open = None
            self._buffered -= batch.room
            batch.cost -= batch.room
            self._notify()

    def flush(self) -> Future | None:
        """Stops what is gathered from lingering; returns the outcome that comes last, if any."""
        self._flushing = self._open is not None
        self._notify()
        newest = self._gathered or self._unanswered
        return newest[-1].outcome if newest else None

    def begin_stream(self) -> int:
        """Begins a stream, and so ends the one before; returns its number."""
        self._sent, self._lost, self._accepted = 0, len(self._unanswered), False
        self.stream += 1
        self._owed_since = monotonic()
        self._notify()
        return self.stream

    def accept_stream(self) -> None:
        """Lets requests be sent: only those for which there was a broker count as sent."""
        self._accepted = True
        self._notify()

    def is_current(self, stream: int) -> bool:
        """Whether a stream may send."""
        return self.stream == stream and not self.error

    def due(self) -> float | None:
        """Seconds until the next request is to be sent; None while nothing is."""
        if not self._accepted:
            return None
        if self._sent < len(self._unanswered):
            return 0
        if not self._gathered or len(self._unanswered) == WINDOW:
            return None
        first = self._gathered[0]
        if first is not self._open or self._flushing or not self._unanswered:
            return 0
        return max(0, first.began + self._linger - monotonic())

    def take(self) -> PublishStreamRequest:
        """The next request to send, once it is due."""
        if self._sent == len(self._unanswered):
            batch = self._gathered.popleft()
            if batch is self._open:
                self._close_batch()
                self._flushing = False
            batch.request.sequence = self.producer.next_sequence
            self.producer.next_sequence += len(batch.request.messages)
            if not self._unanswered:
                self._owed_since = monotonic()
            self._unanswered.append(batch)
        self._sent += 1
        return self._unanswered[self._sent - 1].request

    def settle(self, answer: PublishStreamResponse) -> None:
        """Takes the answer to the oldest unanswered request; raises if it was refused."""
        if not answer.HasField("receipt"):
            raise Error.refused(answer.refusal)
        self._sent -= 1
        self._lost = max(0, self._lost - 1)
        self._failures = 0
        self._progress = self._owed_since = monotonic()
        self._resolve(self._unanswered.popleft(), answer.receipt.first_offset)

    def overdue(self) -> float:
        """Seconds until the broker is to be taken for lost if it does not answer."""
        timeout = min(ANSWER_TIMEOUT, max(1.0, self._retry_for))
        if not self.has_work:
            return timeout
        since = self._owed_since
        if not self._unanswered:
            since = max(since, self._gathered[0].began)
        return since + timeout - monotonic()

    def pause_after(self, error: Error) -> float:
        """Seconds until the next stream after one that ended with an error, which may end the
        producer too."""
        pause, left = pause_after(self._failures, error), math.inf
        self._failures += 1
        if self.has_work:
            oldest = (self._unanswered or self._gathered)[0]
            waiting_since = max(oldest.began + self._linger, self._progress)
            left = waiting_since + self._retry_for - monotonic()
        if not error.may_pass:
            self.fail(error)
        elif left <= 0:
            waited = f"no message was stored for {self._retry_for:g} s: {error}"
            unknown = Error.unknown(waited, error)
            self._end(Error.lost(waited), unknown, len(self._unanswered))
        return min(pause, max(0, left))

    def fail(self, error: Error) -> None:
        """Ends the producer with an error. Messages without an answer fail, and so do later ones.

        An error of the broker's is the answer to what was first sent on the stream that it ended,
        since a broker answers what it accepts before it ends a stream. It says nothing about what
        was sent on an earlier stream, even if it refuses the repetition.
        """
        unknown = Error.unknown(f"not answered before the producer ended: {error}", error)
        self._end(error, unknown, self._lost if error.is_of_broker else len(self._unanswered))

    def close(self) -> None:
        """Ends the producer. Messages without an answer fail, and so do later ones."""
        unknown = Error.unknown("the producer was closed before the broker answered")
        self._end(CLOSED, unknown, len(self._unanswered))

    def _end(self, error: Error, unknown: Error, uncertain: int) -> None:
        """Ends the producer. So many of the oldest requests may be stored."""
        self.error = self.error or error
        self._close_batch()
        while self._unanswered and uncertain:
            uncertain -= 1
            self._unknown = unknown
            self._resolve(self._unanswered.popleft(), unknown)
        while self._unanswered or self._gathered:
            self._resolve((self._unanswered or self._gathered).popleft(), error)
        self._notify()

    def _resolve(self, batch: Batch[Future], outcome: Outcome) -> None:
        self._buffered -= batch.cost
        batch.outcome.set_result(outcome)
        self._notify()
