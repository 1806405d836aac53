"""A broker for a single test, on the same database as the broker that all tests share."""

import os
import signal
import subprocess
from types import TracebackType
from typing import Self


class Broker:
    """Runs for as long as its context; can be stopped and started again on the same port."""

    target = "127.0.0.1:0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.go_on()
            self.stop()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                os.environ["TRUNKLINE_BIN"],
                "serve",
                "--listen",
                self.target,
                "--database-url",
                os.environ["TRUNKLINE_DATABASE_URL"],
                "--log",
                "error",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        self.target = ready.removeprefix("listening on ").strip()
        assert self.target, "the broker did not become ready"

    def stop(self) -> None:
        """Stops the broker as an operator does, with SIGTERM, and waits until it has ended."""
        with self._process:
            self._process.terminate()
            assert self._process.wait(timeout=15) == 0

    def kill(self) -> None:
        """Ends the broker without any notice, with SIGKILL."""
        with self._process:
            self._process.kill()

    def freeze(self) -> None:
        """Keeps the broker from doing anything, while its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends `freeze`."""
        self._process.send_signal(signal.SIGCONT)
