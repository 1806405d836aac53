"""pgmq: its SQL functions, on a PostgreSQL with the same settings as Trunkline's."""

from __future__ import annotations

from pathlib import Path

from peers import postgres
from peers.base import Peer, Server

CRATE, CRATE_VERSION = "pgmq", "0.33.7"
SQL = "src/install/embedded/sql/pgmq.sql"


class Pgmq(Peer):
    name = "pgmq"
    title = "pgmq"
    client = "pgmq"
    durability = "committed and fsynced"
    recycled = ("postgres/pg_wal",)
    ways = {
        "unary": "pgx, 256 callers over a pool of 64 sessions, pgmq.send",
        "pipelined": "64 sessions, 256 pgmq.send in flight on each, each a transaction",
        "batched": "4 sessions, pgmq.send_batch of 1,000",
        "catch-up": "pgmq.read of 1,000, then pgmq.delete of them",
        "both": "published as batched, read as catch-up",
        "latency": "pgmq.send over a pool of 64 sessions; pgmq.read of whatever is there, without a pause",
    }

    def provide(self) -> None:
        postgres.provide()
        self.sql = self.tools.crate_file(CRATE, CRATE_VERSION, SQL)
        control = self.tools.crate_file(CRATE, CRATE_VERSION, "src/install/embedded/pgmq.control")
        lines = dict(line.split(" = ", 1) for line in control.read_text().splitlines() if " = " in line)
        self.number = lines["default_version"].strip("'")

    def version(self) -> str:
        return f"pgmq {self.number} on {postgres.version()}"

    def start(self, folder: Path) -> Server:
        server = postgres.start(folder)
        try:
            postgres.execute(server, self.sql)
        except BaseException:
            server.stop()
            raise
        return server

    def target(self, server: Server) -> str:
        return postgres.url(server)
