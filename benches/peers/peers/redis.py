"""Redis Streams, with its append-only file as the log."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from peers.base import Failed, Load, Peer, Server, free_ports, listens
from tools import Missing, call


class Redis(Peer):
    client = "redis"
    sync: str
    ways = {
        "unary": "rueidis, 256 callers of one client, which pipelines simultaneous calls over 4 connections",
        "pipelined": "64 connections, pipelines of 256 XADD (or redis-benchmark with the same, if that is faster)",
        "batched": "4 connections, pipelines of 1,000 XADD, 2 in flight on each (or redis-benchmark with 8 "
        "connections, if that is faster)",
        "catch-up": "XREADGROUP COUNT 1000, with the XACK of the previous read in the same pipeline",
        "both": "published as batched, read as catch-up",
        "latency": "XADD one by one over one connection; XREADGROUP BLOCK",
    }

    def provide(self) -> None:
        # redis-tools contains the server's program too, without the service that redis-server starts.
        program = self.tools.apt("redis-tools", "redis-check-rdb")
        self.server = self.tools.bin / "redis-server"
        if shutil.which("redis-server"):
            program = Path(shutil.which("redis-server") or "")
        self.server.unlink(missing_ok=True)
        self.server.symlink_to(program.resolve())
        if "Redis server" not in call([self.server, "--version"]):
            raise Missing("redis-tools does not contain the server's program: install redis-server")
        self.benchmark = self.tools.apt("redis-tools", "redis-benchmark")

    def version(self) -> str:
        found = re.search(r"v=(\S+)", call([self.server, "--version"]))
        return f"Redis {found[1] if found else '?'}"

    def start(self, folder: Path) -> Server:
        (port,) = free_ports(1)
        settings = {
            "bind": "127.0.0.1",
            "port": port,
            "dir": folder,
            "appendonly": "yes",
            "appendfsync": self.sync,
            # No snapshots and no rewrites of the log, which would slow the server down at times.
            "save": "",
            "auto-aof-rewrite-percentage": 0,
        }
        server = RedisServer([self.server, *(word for name, value in settings.items()
                                             for word in (f"--{name}", str(value)))], folder)  # fmt: skip
        server.port = port
        return server.wait_until(lambda: listens(port))

    def target(self, server: RedisServer) -> str:
        return f"127.0.0.1:{server.port}"

    def measure(self, server: RedisServer, load: Load, topic: str) -> dict:
        found = super().measure(server, load, topic)
        clients, pipeline = {"pipelined": (64, 256), "batched": (8, 1_000)}.get(load.kind, (0, 0))
        if clients:
            own = found["published"]["messages_per_second"]
            messages = max(int(own * load.seconds), clients * pipeline)
            theirs = self.cross_check(server, load.size, f"{topic}-check", clients, pipeline, messages)
            found["rates_by_client"] = {"rueidis": own, "redis-benchmark": theirs}
            found["published"]["messages_per_second"] = max(own, theirs)
            found["stored_messages"] = found["published"]["messages"] + messages
        return found

    def cross_check(self, server: RedisServer, size: int, topic: str, clients: int, pipeline: int, messages: int) -> float:
        """The rate that Redis's own load generator reaches with similar payloads."""
        line = "0123456789abcdef INFO api request id=0000__rand_int__ path=/orders/74016 status=200 took=2471us; "
        payload = (line * (size // len(line) + 1))[:size]
        output = call([self.benchmark, "-h", "127.0.0.1", "-p", str(server.port), "-c", str(clients),
                     "-P", str(pipeline), "-n", str(messages), "-r", "1000000000",
                     "--csv", "XADD", topic, "*", "m", payload])  # fmt: skip
        last = output.strip().splitlines()[-1]
        try:
            return float(last.rsplit('",', 7)[1].strip('",'))
        except (IndexError, ValueError) as error:
            raise Failed(f"unexpected output of redis-benchmark: {last}") from error


class RedisServer(Server):
    port: int


class RedisAlways(Redis):
    name = "redis-always"
    title = "Redis Streams, appendfsync always"
    durability = "fsynced"
    sync = "always"


class RedisEverySecond(Redis):
    name = "redis-everysec"
    title = "Redis Streams, appendfsync everysec"
    durability = "not fsynced: up to about two seconds may be lost"
    sync = "everysec"
