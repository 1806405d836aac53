"""What all systems have in common: how a system is installed, started, measured and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools import Tools

#: How long a server may take to get ready, and to stop.
START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0


class Failed(Exception):
    """A workload could not be measured."""


class Server:
    """A server process that this script started, with its children."""

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        env: Mapping[str, str | None] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.folder = folder
        self.stop_signal = stop_signal
        self._log = folder / "log"
        with self._log.open("ab") as log:
            # In its own session, so that Ctrl-C reaches only the script, which then stops the server.
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=environment(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **({"user": user, "group": user, "extra_groups": []} if user else {}),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool]) -> Server:
        """Waits until the server is ready; stops it if that fails."""
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while not ready():
                if self.process.poll() is not None:
                    raise Failed(f"the server ended with {self.process.returncode}: {self.log()[-2000:]}")
                if time.monotonic() > deadline:
                    raise Failed(f"the server did not become ready: {self.log()[-2000:]}")
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            # The process group belongs to the server's own session, so this kills no other processes.
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()


class Peer:
    """A system with one set of settings."""

    #: Its name on the command line and in the raw results.
    name: str
    #: Its name in the report.
    title: str
    #: What is on disk when a message is acknowledged.
    durability: str
    #: Its name in the load generator.
    client: str
    #: Folders below the server's own that hold recycled logs.
    recycled: Sequence[str] = ()
    #: How each workload publishes or reads, for the notes of the report.
    ways: Mapping[str, str] = {}
    #: How much longer it is warmed up than other systems.
    warm_up_factor: float = 1.0

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def provide(self) -> None:
        """Installs what is needed; raises Missing if that is not possible."""
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def start(self, folder: Path) -> Server:
        """Starts a server with an empty folder; it is ready when this returns."""
        raise NotImplementedError

    def target(self, server: Server) -> str:
        """The address that the load generator connects to."""
        raise NotImplementedError

    def mode(self, workload: str) -> str:
        """How the load generator uses the system, where there is a choice."""
        return ""

    def measure(self, server: Server, load: Load, topic: str) -> dict:
        """Runs a workload once, and returns the results of the load generator."""
        command: list[str | Path] = [
            self.tools.load, "-peer", self.client, "-target", self.target(server),
            "-workload", load.kind, "-topic", topic, "-size", str(load.size),
            "-seconds", str(load.seconds), "-rate", str(load.rate),
            "-messages", str(load.most_messages), "-server-pid", str(server.pid),
            "-mode", self.mode(load.kind),
        ]  # fmt: skip
        return run_json(command, load.timeout)


class Load:
    """A workload, with its size and duration."""

    def __init__(self, workload: str, seconds: float, rate: int) -> None:
        self.workload = workload
        self.seconds = seconds
        self.rate = rate
        self.size = 1024 if workload == "batched-1k" else 100
        self.kind = "batched" if workload == "batched-1k" else workload
        # The most messages to store before reading them; slower systems store fewer.
        self.most_messages = int(800_000 * seconds) if workload == "catch-up" else 0
        self.timeout = 4 * seconds + 120


def run_json(command: Sequence[str | Path], timeout: float, env: Mapping[str, str] | None = None) -> dict:
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env=environment(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"the load generator did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        raise Failed(f"the load generator failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with some variables changed; those that are None are removed."""
    changed = {**os.environ, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def free_ports(count: int) -> list[int]:
    """Distinct free ports of the loopback address."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
