"""Trunkline with the private PostgreSQL that it starts itself, measured by its own command."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from peers import postgres
from peers.base import Load, Peer, Server, free_ports, run_json
from tools import ROOT, call, need, say


class TrunklineServer(Server):
    """The broker. Its PostgreSQL is not a child process, and outlives it only if it is killed."""

    port: int

    def stop(self) -> None:
        super().stop()
        postmaster = self.folder / "data/postgres/postmaster.pid"
        if postmaster.exists():
            os.kill(int(postmaster.read_text().splitlines()[0]), signal.SIGINT)


class Trunkline(Peer):
    name = "trunkline"
    title = "Trunkline"
    durability = "committed and fsynced"
    recycled = ("data/postgres/pg_wal",)
    ways = {
        "unary": "one connection, 256 unary calls in flight",
        "pipelined": "64 streams over 16 connections, 256 requests of one message in flight on each",
        "batched": "8 streams, requests of 1,000, 8 in flight on each",
        "catch-up": "the client library's consumer, manual commit",
        "both": "published as batched, read as catch-up",
        "latency": "one stream, one message per request",
    }
    arguments = {
        "unary": ["publish", "--unary", "--producers", "1", "--in-flight", "256", "--batch", "1"],
        "pipelined": ["publish", "--producers", "64", "--in-flight", "256", "--batch", "1"],
        "batched": ["publish"],
        "catch-up": ["consume"],
        "both": ["both"],
        "latency": ["latency"],
    }

    def provide(self) -> None:
        named = os.environ.get("TRUNKLINE_BIN")
        built = Path(named) if named else ROOT / "target/release/trunkline"
        if not built.exists():
            need("cargo", "Rust's cargo")
            say("building trunkline")
            call([ROOT / "scripts/install-postgres"])
            call(["cargo", "build", "--release", "--locked"], cwd=ROOT)
        # A copy, so that a build in the meantime does not change the measured program.
        self.program = self.tools.bin / "trunkline"
        shutil.copy2(built, self.program)

    def version(self) -> str:
        return f"{call([self.program, '--version']).strip()} on {postgres.version()}"

    def start(self, folder: Path) -> Server:
        (port,) = free_ports(1)
        command = [self.program, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", folder / "data", "--log", "warn"]
        server = TrunklineServer(command, folder, {"DATABASE_URL": None, "TRUNKLINE_DATABASE_URL": None, "TRUNKLINE_HTTP": "off"})
        server.port = port
        return server.wait_until(lambda: "listening on" in server.log())

    def measure(self, server: TrunklineServer, load: Load, topic: str) -> dict:
        command = [self.program, "bench", *self.arguments[load.kind], "--size", str(load.size),
                   "--output", "json", "--keep"]  # fmt: skip
        if load.kind == "catch-up":
            command += ["--messages", str(load.most_messages)]
        else:
            command += ["--duration", f"{int(load.seconds * 1000)}ms"]
        if load.kind == "latency":
            command += ["--rate", str(load.rate)]
        socket = server.folder / "data/run"
        database = f"postgresql://trunkline@/trunkline?host={socket}"
        env = {"TRUNKLINE_ENDPOINT": f"http://127.0.0.1:{server.port}", "TRUNKLINE_DATABASE_URL": database}
        found = run_json(command, load.timeout, env)
        found["server_cpu_seconds"] = found.get("broker_cpu_seconds", 0) + found.get("postgres_cpu_seconds", 0)
        return found
