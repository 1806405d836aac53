"""The notes of the report: what a reader needs to know about the figures."""

from __future__ import annotations

import re

ORDER = ["unary", "pipelined", "batched", "catch-up", "both", "latency"]
GENERAL = [
    "Each system runs as one node without replication, and client and server share the machine's cores. The figures do "
    "not show networks, clusters, fail-over, several topics or partitions, days of running, or data that does not fit "
    "into memory. A system whose client does more work per message is slower here than with a separate client machine.",
    "The systems differ in kind. Trunkline, Kafka, JetStream, Redis Streams and RabbitMQ's streams keep an ordered log; "
    "a quorum queue and pgmq deliver messages once and forget them. Kafka uses a topic with one partition, because all "
    "others keep one order per topic; with more partitions it can be faster.",
    "Trunkline is measured by `trunkline bench` (Rust), all others by a load generator in Go with the client library "
    "that is considered the fastest. Both make the same payloads and count the same way. Some clients (Kafka's, "
    "Redis's) combine what several callers send into one request; this was left on, as in normal use.",
    "“Fsynced” means that the server called fsync for what it acknowledged, and that the file system reported success. "
    "What is not fsynced survives a crash of the server's process, but not of the machine.",
    "Latency: both load generators let the operating system wake them when a message is due, and measure from when it "
    "was due, however late it was sent.",
    "Catch-up: the messages were written just before they are read, and lie in the page cache. How many there are "
    "differs: as many as the system stored in the same time, but at most 800,000 for each second.",
    "Disk is how much the server's folder grew while its messages were published. For Trunkline and pgmq it excludes "
    "PostgreSQL's write-ahead log, which is recycled and takes up to 4 GB here. The logs of the others hold their "
    "messages, and are included.",
    "Trunkline and Kafka (batched) compress what they store, the others do not. A quorum queue keeps a message both in "
    "its write-ahead log and in a segment until the log is rolled over.",
    "Redis and RabbitMQ are the distribution's packages, which are older than the newest releases.",
    "Server CPU is the CPU time of the server's processes while the workload was measured, without the client.",
    "Each system is warmed up. Kafka and RabbitMQ compile code at run time, so they are warmed up longer: 2.5 and 1.5 "
    "times as long as the others.",
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
    lines += ["", "## Left out", "", *(left_out or ["Nothing: all systems were available."])]
    if failed := [run for run in found["runs"] if "error" in run]:
        lines += ["", "## Failed", ""]
        for run in failed:
            title = found["peers"][run["peer"]]["title"]
            lines.append(f"* {title}, {run['workload']}, round {run['round'] + 1}: {clean(run['error'])}")
    return lines


def redis(found: dict) -> list[str]:
    """How often each of Redis's two load generators was faster."""
    compared = [run for run in found["runs"] if "rates_by_client" in run]
    if not compared:
        return []
    counts = []
    for workload in dict.fromkeys(run["workload"] for run in compared):
        wins = [run["rates_by_client"] for run in compared if run["workload"] == workload]
        own = sum(rates["redis-benchmark"] > rates["rueidis"] for rates in wins)
        counts.append(f"{workload}: {own} of {len(wins)}")
    return [
        "In workloads that publish by pipelines, Redis's own redis-benchmark, which repeats one command with a different "
        "number in it, ran after rueidis, and the report has the faster of the two. redis-benchmark was faster in "
        f"{'; '.join(counts)} measurements. Acknowledgements and CPU are those of rueidis."
    ]


def clean(text: str) -> str:
    """A reason in one line, with the machine's paths removed."""
    return re.sub(r"(?:/[\w.+@-]+){2,}/?", "…", " ".join(text.split()))[:400]
