"""Waits for what the package logs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("trunkline")
SECONDS = 10


@contextmanager
def logged(text: str) -> Iterator[Callable[[], Awaitable[None]]]:
    """Yields a function that waits until the package has logged a text."""
    loop = asyncio.get_running_loop()
    found = asyncio.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                loop.call_soon_threadsafe(found.set)

    async def wait() -> None:
        async with asyncio.timeout(SECONDS):
            await found.wait()

    watch, level = Watch(), LOGGER.level
    LOGGER.addHandler(watch)
    LOGGER.setLevel(logging.INFO)
    try:
        yield wait
    finally:
        LOGGER.removeHandler(watch)
        LOGGER.setLevel(level)
