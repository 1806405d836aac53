"""When a call that broke is made again, and how long to wait before."""

import random

import grpc
from google.rpc.error_details_pb2 import RetryInfo

from examples.error_details import error_detail

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

CHANNEL_OPTIONS = [
    # A channel that cannot connect waits by itself too, and by default for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A broker that vanished without a word is noticed, as an idle stream asks for it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


def may_retry(error: grpc.RpcError) -> bool:
    """Whether the same call may do better later: the broker or the connection went away, or there
    was no answer in time."""
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def pause_before_retry(failures: int, asked: float) -> float:
    """Seconds to wait after so many failures in a row: what the broker asks for, and on top what
    grows and is cut by chance, so that clients of one broker do not come back all at once."""
    return asked + random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 16)))


def retry_delay(error: grpc.RpcError) -> float:
    """The seconds that the broker asks to wait; none if it did not say anything."""
    info = error_detail(error, RetryInfo)
    return info.retry_delay.ToTimedelta().total_seconds() if info else 0.0
