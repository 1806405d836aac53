"""The package's one exception, and how long to wait before a retry."""

import queue
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc import StatusCode
from grpc_status import rpc_status

from trunkline.v1.producer_pb2 import PublishRefusal

LONGEST_PAUSE = 5.0
_CODES = {code.value[0]: code for code in StatusCode}
_CODES_OF_BREAKS = (
    StatusCode.CANCELLED,
    StatusCode.UNKNOWN,
    StatusCode.INTERNAL,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED,
)
#: The reason of a failure of the package's own.
_CLIENT_FAILED = "CLIENT_FAILED"


class Violation(NamedTuple):
    """A field that is wrong, and what is wrong with it."""

    field: str
    description: str


@dataclass(eq=False)
class Error(Exception):
    """Why something failed. Programs decide by `code` and `reason`; `message` is for people."""

    code: StatusCode
    message: str
    #: `TOPIC_NOT_FOUND` for example; empty if the broker gave none.
    reason: str = ""
    #: Every value that the message mentions.
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: The seconds to wait before a retry, if the broker gave them.
    retry_delay: float | None = None
    violations: Sequence[Violation] = ()

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """What a stub raised, with the details that the broker sent."""
        # An error of asyncio is not a grpc.Call, but has all the methods that are used here.
        call = cast(grpc.Call, error)
        info, retry, request, delay = ErrorInfo(), RetryInfo(), BadRequest(), None
        status = rpc_status.from_call(call)
        for detail in status.details if status else ():
            if detail.Unpack(retry):
                delay = _seconds(retry.retry_delay)
            else:
                _ = detail.Unpack(info) or detail.Unpack(request)
        violations = [Violation(it.field, it.description) for it in request.field_violations]
        text = call.details() or "the call failed"
        return cls(call.code(), text, info.reason, dict(info.metadata), delay, violations)

    @classmethod
    def refused(cls, refusal: PublishRefusal) -> Self:
        code = _CODES.get(refusal.code, StatusCode.UNKNOWN)
        delay = _seconds(refusal.retry_delay) if refusal.HasField("retry_delay") else None
        return cls(code, refusal.message, refusal.reason, dict(refusal.metadata), delay)

    @classmethod
    def invalid(cls, name: str, problem: str, **limit: str) -> Self:
        """What no broker would accept, so that it is not sent."""
        code, text, violation = StatusCode.INVALID_ARGUMENT, f"{name}: {problem}", (name, problem)
        metadata = {"field": name, **limit}
        return cls(code, text, "INVALID_FIELD", metadata, None, [Violation(*violation)])

    @classmethod
    def lost(cls, text: str) -> Self:
        return cls(StatusCode.UNAVAILABLE, text)

    @classmethod
    def unknown(cls, text: str, cause: Exception | None = None) -> Self:
        """What was sent has no answer, so that it may be stored or not."""
        error = cls(StatusCode.UNAVAILABLE, text, "OUTCOME_UNKNOWN")
        error.__cause__ = cause
        return error

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later."""
        if self.code is StatusCode.UNAVAILABLE or self.retry_delay is not None:
            return True
        # A broker gives a reason. Without one, a proxy or the transport made up the code.
        return self.code in _CODES_OF_BREAKS and not self.reason

    @property
    def is_of_broker(self) -> bool:
        """Whether it is not a failure of the package's own."""
        return self.reason != _CLIENT_FAILED


def why_ended(failure: Exception) -> Error:
    """Why a stream or a call of the package's own has ended."""
    if isinstance(failure, Error):
        return failure
    if isinstance(failure, EOFError):
        return Error.lost("the broker closed the stream")
    if isinstance(failure, grpc.RpcError):
        return Error.of(failure)
    if isinstance(failure, TimeoutError | queue.Empty):
        return Error.lost("the broker does not answer")
    # It is final, as nobody may wait for ever.
    return Error(StatusCode.INTERNAL, f"the client failed: {failure!r}", _CLIENT_FAILED)


def pause_after(failures: int, error: Error) -> float:
    """Seconds to wait after this many failures in a row. They double up to a limit, and are random,
    so that clients do not all return at once."""
    pause = min(LONGEST_PAUSE, 0.1 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1)
    return max(pause, min(error.retry_delay or 0, LONGEST_PAUSE))


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
