"""Decides whether to retry a failed call, and how long to wait first."""

import random

import grpc
from google.rpc.error_details_pb2 import RetryInfo

from examples.error_details import error_detail

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

CHANNEL_OPTIONS = [
    # A channel that cannot connect pauses by itself too: by default for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Pings notice that a broker has vanished silently, even while the stream is idle.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


def may_retry(error: grpc.RpcError) -> bool:
    """Whether the same call may succeed later: the broker or the connection went away, or no answer
    came in time."""
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def pause_before_retry(failures: int, asked: float) -> float:
    """Seconds to wait after this many failures in a row: the delay that the broker asks for, plus a
    random backoff with a growing limit, so that clients do not all reconnect at once."""
    return asked + random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 16)))


def retry_delay(error: grpc.RpcError) -> float:
    """The seconds that the broker asks to wait; 0 if it does not ask."""
    info = error_detail(error, RetryInfo)
    return info.retry_delay.ToTimedelta().total_seconds() if info else 0.0
