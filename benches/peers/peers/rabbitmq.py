"""RabbitMQ: a quorum queue and a stream."""

from __future__ import annotations

import re
from pathlib import Path

from peers.base import Peer, Server, free_ports, listens
from tools import call

#: The program in Debian's package that the package's scripts start as the account rabbitmq.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMq(Peer):
    # Erlang compiles the code while it runs.
    warm_up_factor = 1.5

    def provide(self) -> None:
        self.tools.apt("rabbitmq-server", PROGRAM)
        self.epmd = self.tools.apt("erlang-base", "epmd")

    def version(self) -> str:
        # The path contains the version, so no running node is needed.
        found = re.search(r"rabbitmq_server-([0-9.]+)", str(PROGRAM.resolve()))
        erlang = call(["erl", "-noshell", "-eval", 'io:format("~s", [erlang:system_info(otp_release)]), halt().'])
        return f"RabbitMQ {found[1] if found else '?'} on Erlang {erlang}"

    def start(self, folder: Path) -> Server:
        amqp, stream, distribution, mapper = free_ports(4)
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\n"
            f"stream.listeners.tcp.1 = 127.0.0.1:{stream}\n"
            "stream.advertised_host = 127.0.0.1\n"
            f"stream.advertised_port = {stream}\n"
            "log.console = true\n"
            "log.file = false\n"
            "disk_free_limit.absolute = 1GB\n"
        )
        (folder / "plugins").write_text("[rabbitmq_stream].\n")
        # Erlang's name server. Without it, the node would start one that outlives the node.
        names = {"ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        epmd = Server([self.epmd], folder, names)
        env = {
            **names,
            "HOME": str(folder),
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            # Makes the script exec the server instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        try:
            epmd.wait_until(lambda: listens(mapper))
            server = RabbitServer([PROGRAM], folder, env)
        except BaseException:
            epmd.stop()
            raise
        server.epmd, server.amqp, server.stream = epmd, amqp, stream
        return server.wait_until(lambda: "Server startup complete" in server.log())


class RabbitServer(Server):
    epmd: Server
    amqp: int
    stream: int

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self.epmd.stop()


class RabbitQuorum(RabbitMq):
    name = "rabbitmq-quorum"
    title = "RabbitMQ, quorum queue"
    client = "rabbitmq"
    durability = "fsynced"
    ways = {
        "unary": "256 channels over 4 connections, each waits for its confirm",
        "pipelined": "64 connections with a channel each, 256 confirms in flight on each",
        "batched": "no batches in the protocol: 4 connections, 2,000 confirms in flight on each",
        "catch-up": "a consumer with a prefetch of 2,000, one acknowledgement for 500 messages",
        "both": "published as batched, read as catch-up",
        "latency": "one channel",
    }

    def target(self, server: RabbitServer) -> str:
        return f"127.0.0.1:{server.amqp}"


class RabbitStream(RabbitMq):
    name = "rabbitmq-stream"
    title = "RabbitMQ, stream"
    client = "rabbitmq-stream"
    durability = "not fsynced: left to the operating system"
    ways = {
        "unary": "256 producers of a connection each, each waits for its confirm",
        "pipelined": "64 producers of a connection each, 256 confirms in flight on each",
        "batched": "4 producers, BatchSend of 1,000 in sub-entries of 100, not compressed, 16 in flight on each",
        "catch-up": "the offset stored every 10,000 messages",
        "both": "published as batched, read as catch-up",
        "latency": "one producer, Send",
    }

    def target(self, server: RabbitServer) -> str:
        return f"127.0.0.1:{server.stream}"
