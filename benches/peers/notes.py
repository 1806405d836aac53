"""What a reader has to know of the figures."""

from __future__ import annotations

import re

ORDER = ["unary", "pipelined", "batched", "catch-up", "both", "latency"]
GENERAL = [
    "One node of each, nothing replicated, on a machine whose cores client and server share. What the figures do not "
    "show: networks, clusters, fail-over, several topics or partitions, days of running, data that does not fit into "
    "memory. Systems whose client does more work for a message are slower here than beside a machine for clients.",
    "The systems are not the same thing. Trunkline, Kafka, JetStream, Redis Streams and RabbitMQ's streams keep an "
    "ordered log; a quorum queue and pgmq hand messages out once and forget them. Kafka has a topic of one partition, "
    "as all others have one order for a topic; with more partitions it can be faster.",
    "Trunkline is measured by `trunkline bench` (Rust), all others by a load generator in Go with the client library "
    "that is taken for the fastest; both make the same payloads and count the same way. Where a client sends what "
    "several callers give it in one request (Kafka's, Redis's), this was left as it is: it is how one uses it.",
    "“Fsynced” means that the server called fsync for what it acknowledged, and that the file system said it is done. "
    "What is not fsynced survives the end of the server's process, and not that of the machine.",
    "Latency: both load generators have the system wake them when a message is due, and count from when it was due, "
    "however late it was sent.",
    "Catch-up: what is read was written just before, and lies in the page cache. What is stored first differs: as much "
    "as the system took in the same time, and 800,000 messages for each second at the most.",
    "Disk is how much the folder of a server grew while its messages were published; for Trunkline and pgmq without "
    "PostgreSQL's write-ahead log, which is used again and again and takes up to 4 GB here. Logs of others are "
    "what keeps their messages, and are counted.",
    "Trunkline and Kafka (batched) store compressed, the others do not. A quorum queue has a message in its write-ahead "
    "log and in a segment until the log is rolled over.",
    "Redis and RabbitMQ are those that the distribution packages, which are older than their newest releases.",
    "Server CPU is that of the server's processes while its workload was measured, client not included.",
    "Warming up lets code that is compiled at run time become fast; Kafka gets 2.5 times, RabbitMQ 1.5 times as much.",
]


def notes(found: dict) -> list[str]:
    lines = ["## How each was used", ""]
    for peer in found["peers"].values():
        lines.append(f"**{peer['title']}**")
        lines.append("")
        lines += [f"* {workload}: {peer['ways'][workload]}" for workload in ORDER if workload in peer["ways"]]
        lines.append("")
    lines += ["## Notes", "", *(f"* {note}" for note in [*GENERAL, *redis(found)])]
    left_out = [f"* {title}: {clean(reason)}" for title, reason in found["missing"].items()]
    lines += ["", "## Left out", "", *(left_out or ["Nothing: all systems could be had."])]
    if failed := [run for run in found["runs"] if "error" in run]:
        lines += ["", "## Failed", ""]
        for run in failed:
            title = found["peers"][run["peer"]]["title"]
            lines.append(f"* {title}, {run['workload']}, round {run['round'] + 1}: {clean(run['error'])}")
    return lines


def redis(found: dict) -> list[str]:
    """Which of its two load generators was the faster."""
    compared = [run for run in found["runs"] if "rates_by_client" in run]
    if not compared:
        return []
    told = []
    for workload in dict.fromkeys(run["workload"] for run in compared):
        wins = [run["rates_by_client"] for run in compared if run["workload"] == workload]
        own = sum(rates["redis-benchmark"] > rates["rueidis"] for rates in wins)
        told.append(f"{workload}: {own} of {len(wins)}")
    return [
        "Redis's own redis-benchmark, which sends one and the same command with another number in it, was run after "
        "rueidis in workloads that publish by pipelines, and the faster of the two is told; it was the faster in "
        f"{'; '.join(told)} measurements. Acknowledgements and CPU are those of rueidis."
    ]


def clean(text: str) -> str:
    """A reason in one line, without the paths of this machine."""
    return re.sub(r"(?:/[\w.+@-]+){2,}/?", "…", " ".join(text.split()))[:400]
