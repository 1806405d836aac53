"""NATS JetStream, file storage."""

from __future__ import annotations

from pathlib import Path

from peers.base import Peer, Server, free_ports, listens

MODULE, VERSION = "github.com/nats-io/nats-server/v2", "v2.15.2"


class Nats(Peer):
    client = "nats"
    #: How often the server calls fsync.
    sync: str
    #: How batches are published: async, atomic or fast, whichever is fastest with that fsync setting.
    batches: str
    ways = {
        "unary": "256 callers of Publish over 4 connections",
        "pipelined": "64 connections, PublishAsync, 256 in flight on each",
        "catch-up": "a durable pull consumer, 10,000 messages ahead, one acknowledgement for 1,000 messages",
        "both": "published as batched, read as catch-up",
        "latency": "PublishAsync on one connection",
    }

    def provide(self) -> None:
        self.server = self.tools.go_install(MODULE, VERSION)

    def version(self) -> str:
        return f"NATS {VERSION.removeprefix('v')}"

    def start(self, folder: Path) -> Server:
        (port,) = free_ports(1)
        (folder / "nats.conf").write_text(
            f"listen: 127.0.0.1:{port}\n"
            "jetstream {\n"
            f"  store_dir: {folder}/store\n"
            f"  sync_interval: {self.sync}\n"
            # The most that may be in flight; the server refuses publishes beyond it.
            "  max_buffered_msgs: 1000000\n"
            "  max_buffered_size: 1GB\n"
            "  max_file_store: 50GB\n"
            "}\n"
        )
        server = NatsServer([self.server, "-c", folder / "nats.conf"], folder)
        server.port = port
        return server.wait_until(lambda: "Server is ready" in server.log() and listens(port))

    def target(self, server: NatsServer) -> str:
        return f"127.0.0.1:{server.port}"

    def mode(self, workload: str) -> str:
        return self.batches


class NatsServer(Server):
    port: int


class NatsDefault(Nats):
    name = "nats-default"
    title = "NATS JetStream, default sync"
    durability = "not fsynced: the last two minutes may be lost"
    sync = "2m"
    batches = "fast"
    ways = {**Nats.ways, "batched": "4 connections, orbit's fast batches, an acknowledgement for 1,000 messages, "
            "8,000 in flight on each"}  # fmt: skip


class NatsAlways(Nats):
    name = "nats-always"
    title = "NATS JetStream, sync always"
    durability = "fsynced"
    sync = "always"
    batches = "atomic"
    ways = {**Nats.ways, "batched": "8 connections, orbit's atomic batches of 1,000, one after the other on each: "
            "one fsync per batch, where other ways to publish call one per message"}  # fmt: skip
