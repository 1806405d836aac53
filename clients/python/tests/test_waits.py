"""Tests that waits are short enough for a signal, and end when they should."""

from queue import Empty, SimpleQueue

import pytest

from trunkline import _waits
from trunkline._waits import wait_in_steps


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_wait_ends_with_its_time(timeout: float) -> None:
    queue = SimpleQueue[int]()
    with pytest.raises(Empty):
        wait_in_steps(lambda step: queue.get(timeout=step), timeout, Empty)


@pytest.mark.parametrize("timeout", [None, 3_600])
def test_a_long_wait_has_breaks(timeout: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_waits, "LONGEST_WAIT", 0.01)
    steps: list[float] = []

    def wait(step: float) -> str:
        steps.append(step)
        if len(steps) < 3:
            raise TimeoutError
        return "done"

    assert wait_in_steps(wait, timeout, TimeoutError) == "done"
    assert steps == [0.01, 0.01, 0.01]
