"""A blocking producer."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from threading import Condition, Event, RLock, Thread
from typing import Unpack

import grpc

from trunkline._client import Client
from trunkline._errors import Error, why_ended
from trunkline._limits import check_id, cost_of
from trunkline._outbox import FAILED_FLUSH_TIMEOUT, Outbox, Outcome, ProducerOptions
from trunkline._waits import LONGEST_WAIT, wait_in_steps
from trunkline.v1.producer_pb2 import PublishStreamRequest, RegisterProducerRequest
from trunkline.v1.producer_pb2_grpc import ProducerServiceStub

#: Seconds that closing waits for a thread. It ends at once, unless gRPC keeps it.
JOIN_TIMEOUT = 5.0


class Receipt:
    """The broker's answer to a message: a future of its offset."""

    __slots__ = ("_index", "_outcome")

    def __init__(self, outcome: Future[Outcome], index: int) -> None:
        self._outcome = outcome
        self._index = index

    def result(self, timeout: float | None = None) -> int:
        """Waits until the message is on disk; returns its offset.

        Raises the error if it is not stored, and TimeoutError if that many seconds have passed.
        """
        outcome = wait_in_steps(self._outcome.result, timeout, TimeoutError)
        if isinstance(outcome, Error):
            raise outcome.with_traceback(None)
        return outcome + self._index

    def done(self) -> bool:
        """Whether `result` returns, or raises, at once."""
        return self._outcome.done()


class Producer(AbstractContextManager["Producer"]):
    """Publishes to a topic, and stores each message once, whatever breaks.

    It is registered if it is missing. It is the only live instance of its id: the next one fences
    it. Threads may share it. A `with` block that fails waits for answers for five seconds at most.
    """

    def __init__(
        self, client: Client, topic: str, producer_id: str, **options: Unpack[ProducerOptions]
    ) -> None:
        check_id("producer_id", producer_id)
        self._lock = RLock()
        self._changed = Condition(self._lock)
        notify = self._changed.notify_all
        self._outbox: Outbox[Future[Outcome]] = Outbox(Future, notify, **options)
        request = RegisterProducerRequest(topic=topic, producer_id=producer_id, fence=True)
        register = ProducerServiceStub(client.channel).RegisterProducer
        self._outbox.producer = client.call(register, request).producer
        self._channel: grpc.Channel = client.open_channel(grpc)
        self._stub = ProducerServiceStub(self._channel)
        self._metadata = client.metadata
        self._stream: grpc.Call | None = None
        self._closed = False
        self._delivery = self._start(self._deliver)

    def publish(
        self, payload: bytes, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Receipt:
        """Publishes a message, after waiting for room. Its receipt will hold its offset.

        Raises an error if the message exceeds a limit, or if the producer has ended.
        """
        cost = cost_of(payload, key, headers)
        # A `with` would take twice as long, which counts for each message.
        self._lock.acquire()
        try:
            while not (added := self._outbox.add(payload, key, headers, cost)):
                self._changed.wait(LONGEST_WAIT)
        finally:
            self._lock.release()
        return Receipt(*added)

    def flush(self, timeout: float | None = None) -> None:
        """Waits until every message so far is on disk; raises the error if one is not stored, and
        OUTCOME_UNKNOWN if one may be.

        Raises TimeoutError if that many seconds have passed.
        """
        with self._lock:
            newest = self._outbox.flush()
        if newest:
            wait_in_steps(newest.result, timeout, TimeoutError)
        self._outbox.check_stored()

    def close(self) -> None:
        """Flushes, and ends the producer."""
        self._close(None)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        # The caller's failure goes first.
        with suppress(Exception):
            self._close(FAILED_FLUSH_TIMEOUT)

    def _close(self, timeout: float | None) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.flush(timeout)
        finally:
            try:
                self._end(self._outbox.close)
                self._delivery.join(JOIN_TIMEOUT)
            finally:
                self._channel.close()

    def _end(self, end: Callable[[], None]) -> None:
        with self._lock:
            end()
            if self._stream:
                self._stream.cancel()

    def _fail(self, failure: Exception) -> None:
        error = why_ended(failure)
        self._end(lambda: self._outbox.fail(error))

    def _start(self, work: Callable[..., None], *arguments: object) -> Thread:
        """Runs a thread. If it fails, so does the producer: nobody may wait for ever."""

        def run() -> None:
            try:
                work(*arguments)
            except Exception as failure:
                self._fail(failure)

        thread = Thread(target=run, name="trunkline-producer", daemon=True)
        thread.start()
        return thread

    def _deliver(self) -> None:
        while not self._outbox.error:
            with self._lock:
                self._changed.wait_for(lambda: self._outbox.has_work or self._outbox.error)
            error = self._run_stream()
            with self._lock:
                pause = self._outbox.pause_after(error)
                self._changed.wait_for(lambda: self._outbox.error, pause)

    def _run_stream(self) -> Error:
        """Publishes until the stream ends; returns why it ended."""
        with self._lock:
            if self._outbox.error:
                return self._outbox.error
            requests = self._requests(self._outbox.begin_stream())
            self._stream = stream = self._stub.PublishStream(requests, metadata=self._metadata)
        self._start(self._watch, stream)
        try:
            stream.initial_metadata()
            with self._lock:
                if stream.is_active():
                    self._outbox.accept_stream()
            for answer in stream:
                with self._lock:
                    self._outbox.settle(answer)
            raise EOFError
        except Exception as failure:
            error = why_ended(failure)
            if error.code is grpc.StatusCode.CANCELLED and self._overdue() <= 0:
                return why_ended(TimeoutError())
            return error
        finally:
            stream.cancel()

    def _requests(self, stream: int) -> Iterator[PublishStreamRequest]:
        """What is to be sent on a stream; a thread of gRPC's asks for it."""
        try:
            while request := self._next_request(stream):
                yield request
        except Exception as failure:
            self._fail(failure)

    def _next_request(self, stream: int) -> PublishStreamRequest | None:
        """Waits until a request is due; None when the stream is to end."""
        with self._lock:
            while self._outbox.is_current(stream):
                if (pause := self._outbox.due()) == 0:
                    return self._outbox.take()
                self._changed.wait(pause)
        return None

    def _watch(self, stream: grpc.Call) -> None:
        """Cancels a stream that owes an answer for too long: a blocking read cannot time out."""
        ended = Event()
        if not stream.add_callback(ended.set):
            return
        while not ended.wait(max(0, self._overdue())):
            if self._overdue() <= 0:
                stream.cancel()
                return

    def _overdue(self) -> float:
        with self._lock:
            return self._outbox.overdue()
