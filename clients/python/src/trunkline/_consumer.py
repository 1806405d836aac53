"""A blocking consumer."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeAlias, Unpack

import grpc

from trunkline._client import Client
from trunkline._errors import Error, why_ended
from trunkline._progress import COMMIT_INTERVAL, COMMIT_TIMEOUT, ConsumerOptions, Progress
from trunkline._waits import wait_in_steps
from trunkline.v1.consumer_pb2 import ConsumeRequest, ConsumeResponse
from trunkline.v1.consumer_pb2_grpc import ConsumerServiceStub
from trunkline.v1.message_pb2 import Message

#: Seconds that closing waits for a thread. It ends at once, unless gRPC keeps it.
JOIN_TIMEOUT = 1.0

_Call: TypeAlias = "grpc._CallIterator[ConsumeResponse]"


class _Stream:
    """A stream that a thread of its own opens and reads, one frame ahead of the consumer.

    A blocking read cannot time out. And neither may run in the main thread, where a
    KeyboardInterrupt may leave gRPC's channel locked.
    """

    def __init__(self, open_call: Callable[[], _Call]) -> None:
        self._open_call = open_call
        self._call: _Call | None = None
        self._cancelled = False
        self._frames: SimpleQueue[ConsumeResponse | Exception] = SimpleQueue()
        #: An item for each frame that the consumer has taken.
        self._taken: SimpleQueue[None] = SimpleQueue()
        Thread(target=self._run, name="trunkline-stream", daemon=True).start()

    def read(self, timeout: float) -> ConsumeResponse:
        """The next frame, or why there is none."""
        frame = wait_in_steps(lambda step: self._frames.get(timeout=step), timeout, Empty)
        self._taken.put(None)
        if isinstance(frame, Exception):
            raise frame
        return frame

    def cancel(self) -> None:
        self._cancelled = True
        if self._call:
            self._call.cancel()
        self._taken.put(None)

    def _run(self) -> None:
        try:
            self._call = call = self._open_call()
            if self._cancelled:
                call.cancel()
            for frame in call:
                self._frames.put(frame)
                self._taken.get()
            self._frames.put(EOFError())
        except Exception as failure:
            self._frames.put(failure)


class Consumer(AbstractContextManager["Consumer"], Iterator[Message]):
    """A topic's messages in the order of their offsets, whatever breaks.

    It is registered if it is missing. One thread iterates, commits and closes.
    """

    def __init__(
        self, client: Client, topic: str, consumer_id: str, **options: Unpack[ConsumerOptions]
    ) -> None:
        self._progress = Progress(topic, consumer_id, **options)
        self._client = client
        register = ConsumerServiceStub(client.channel).RegisterConsumer
        client.call(register, self._progress.registration)
        self._channel: grpc.Channel = client.open_channel(grpc)
        self._stub = ConsumerServiceStub(self._channel)
        self._ready: Iterator[Message] = iter(())
        self._stream: _Stream | None = None
        self._lock, self._wake = Lock(), Event()
        #: Until when the keeper may commit after the end, and what made it fail.
        self._commit_by = 0.0
        self._failure: Exception | None = None
        self._keeper = Thread(target=self._keep, name="trunkline-consumer", daemon=True)
        self._keeper.start()

    def __next__(self) -> Message:
        while True:
            for message in self._ready:
                self._progress.in_hand = message
                return message
            with self._lock:
                more = self._progress.proceed()
            if not more:
                if self._progress.auto_commit:
                    self.close()
                raise StopIteration
            self._fetch()

    @property
    def epoch(self) -> int:
        """The epoch in which the last message was delivered, and 0 before the first one.

        The SQL function `trunkline.commit_position` takes it. It refuses an epoch that has ended,
        as another consumer may have processed the message by then. So read it with each message:
        the epoch of a later one may be another. Only for a consumer without `auto_commit`.
        """
        return self._progress.epoch

    def commit(self, message: Message) -> None:
        """Records that a message, and all before it, are finished.

        They are committed in the background; `close` waits for that. It has no effect on a message
        that was received before a seek. Raises the broker's error if it refuses commits for now;
        they are tried again.
        """
        with self._lock:
            self._progress.finish(message)
        if self._progress.is_urgent:
            self._wake.set()
        self._progress.check_refused()

    def close(self) -> None:
        """Commits what is finished, waits until that is stored, and ends the stream.

        With `auto_commit`, the last message counts as finished.
        """
        self._close(True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A message at which the caller failed is to come again.
        self._close(kind is None)

    def _fetch(self, timeout: float = math.inf) -> None:
        """Waits for the next frame, or until a broken stream may be opened again."""
        if self._progress.is_urgent:
            self._wake.set()
        try:
            if self._stream is None:
                # Before its thread runs: how long to wait for the first frame depends on it.
                request = self._progress.begin_stream()
                self._stream = _Stream(lambda: self._open_call(request))
            frame = self._stream.read(min(self._progress.silence, timeout))
        except Exception as failure:
            if self._stream:
                self._stream.cancel()
                self._stream = None
            time.sleep(min(self._progress.pause_after(why_ended(failure)), timeout))
        else:
            with self._lock:
                self._ready = iter(self._progress.observe(frame))

    def _open_call(self, request: ConsumeRequest) -> _Call:
        call: _Call = self._stub.Consume(request, metadata=self._client.metadata)
        return call

    def _keep(self) -> None:
        """Commits what is finished, also after the end: a call in the main thread may leave gRPC's
        channel locked after a KeyboardInterrupt."""
        try:
            while not self._progress.closed:
                self._wake.wait(COMMIT_INTERVAL)
                self._wake.clear()
                self._commit()
            self._commit_rest()
        except Exception as failure:
            self._failure = failure

    def _commit(self, timeout: float = COMMIT_TIMEOUT) -> bool:
        """Commits what is finished; returns whether that is to be tried again."""
        with self._lock:
            request = self._progress.next_commit()
        if request is None:
            return False
        error = None
        try:
            self._client.call(self._stub.Commit, request, timeout)
        except Exception as failure:
            error = why_ended(failure)
        with self._lock:
            return self._progress.record_commit(request, error)

    def _close(self, finished: bool) -> None:
        if self._progress.closed:
            return
        with self._lock:
            self._progress.release(finished)
            self._commit_by = time.monotonic() + COMMIT_TIMEOUT
            self._progress.closed = True
        self._wake.set()
        try:
            with suppress(TimeoutError):
                wait_in_steps(self._join_keeper, COMMIT_TIMEOUT + JOIN_TIMEOUT, TimeoutError)
        finally:
            # An interrupt ends the wait, and the keeper gives up.
            self._commit_by = 0.0
            # The lease is kept until here, so that nobody else moves the position.
            if stream := self._stream:
                stream.cancel()
            self._channel.close()
            self._ready = iter(())
        # A failure of the caller's goes first.
        if finished:
            if self._failure:
                raise self._failure
            self._progress.check_committed()

    def _join_keeper(self, timeout: float) -> None:
        self._keeper.join(timeout)
        if self._keeper.is_alive():
            raise TimeoutError

    def _commit_rest(self) -> None:
        """Commits what is finished. If that needs another epoch, it reads on: a seek begins one, or
        says that nothing is left to commit."""
        while (left := self._commit_by - time.monotonic()) > 0:
            if self._commit(left):
                time.sleep(min(self._progress.commit_pause, left))
            elif self._progress.awaits_epoch:
                try:
                    self._fetch(left)
                except Error:
                    return
            else:
                return
