"""Kafka: one node that is both broker and controller (KRaft), started from its jars."""

from __future__ import annotations

from pathlib import Path

from peers.base import Peer, Server, free_ports, listens
from tools import HERE, Missing, call, need

#: The options of Kafka's own start script, with its default heap size.
JVM = ["-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
       "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"]  # fmt: skip


class Kafka(Peer):
    client = "kafka"
    #: Additional lines for the settings file.
    sync = ""
    # The JVM compiles the code while it runs.
    warm_up_factor = 2.5
    ways = {
        "unary": "franz-go, 256 callers of one client, which combines simultaneous calls",
        "pipelined": "64 clients without linger, 256 messages in flight on each",
        "batched": "2 clients, linger 5 ms, batches of up to 1 MB, lz4, 32,000 messages in flight on each",
        "catch-up": "a consumer group of one, offsets committed every 100 ms",
        "both": "published as batched, read as catch-up",
        "latency": "one client without linger",
    }

    def mode(self, workload: str) -> str:
        """The compression, which pays off only for batches."""
        return "none" if workload in ("unary", "pipelined", "latency") else "lz4"

    def provide(self) -> None:
        need("java", "Java 17 or later")
        self.jars = self.tools.maven_jars(HERE / "kafka.pom.xml", "kafka")
        found = sorted(self.jars.glob("kafka_2.13-*.jar"))
        if not found:
            raise Missing("Maven did not download the jar of Kafka's server")
        self.number = found[0].stem.split("-")[1]

    def version(self) -> str:
        return f"Kafka {self.number}"

    def start(self, folder: Path) -> Server:
        port, controller = free_ports(2)
        settings = folder / "server.properties"
        settings.write_text(
            "process.roles=broker,controller\n"
            "node.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
            "controller.listener.names=CONTROLLER\n"
            f"log.dirs={folder}/logs\n"
            "offsets.topic.replication.factor=1\n"
            "offsets.topic.num.partitions=1\n"
            "transaction.state.log.replication.factor=1\n"
            "transaction.state.log.min.isr=1\n"
            "share.coordinator.state.topic.replication.factor=1\n"
            "share.coordinator.state.topic.min.isr=1\n"
            "group.initial.rebalance.delay.ms=0\n"
            f"{self.sync}"
        )
        java = ["java", *JVM, "-cp", f"{self.jars}/*"]
        cluster = call([*java, "kafka.tools.StorageTool", "random-uuid"]).split()[-1]
        call([*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", settings])
        server = KafkaServer([*java, "kafka.Kafka", settings], folder)
        server.port = port
        return server.wait_until(lambda: listens(port))

    def target(self, server: KafkaServer) -> str:
        return f"127.0.0.1:{server.port}"


class KafkaServer(Server):
    port: int


class KafkaDefault(Kafka):
    name = "kafka-default"
    title = "Kafka, default flush"
    durability = "not fsynced: left to the operating system"


class KafkaFlush(Kafka):
    name = "kafka-flush"
    title = "Kafka, flush.messages=1"
    durability = "fsynced"
    sync = "log.flush.interval.messages=1\n"
