"""Waits that a signal ends."""

import math
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

#: The longest wait without a break, in seconds. A signal that comes just before a wait does not end
#: it, so that Ctrl-C would have no effect for as long as the wait takes.
LONGEST_WAIT = 0.5


def wait_in_steps(
    wait: Callable[[float], T], timeout: float | None, expired: type[Exception]
) -> T:
    """What `wait` returns within that many seconds; None waits for ever.

    Until then, it raises `expired` for each step, as this does at the end.
    """
    deadline = math.inf if timeout is None else monotonic() + timeout
    while True:
        left = deadline - monotonic()
        try:
            return wait(max(0, min(LONGEST_WAIT, left)))
        except expired:
            if left <= LONGEST_WAIT:
                raise
