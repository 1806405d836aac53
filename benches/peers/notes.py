"""What a reader needs to know about the figures."""

from __future__ import annotations

import re

ORDER = ["unary", "pipelined", "batched", "catch-up", "both", "latency"]
GENERAL = [
    "One node of each, nothing replicated, on a machine whose cores client and server share. The figures do not show "
    "networks, clusters, fail-over, several topics or partitions, days of running, or data that does not fit into "
    "memory. Systems whose client does more work per message are slower here than with a separate machine for clients.",
    "The systems differ in kind. Trunkline, Kafka, JetStream, Redis Streams and RabbitMQ's streams keep an ordered "
    "log; a quorum queue and pgmq hand messages out once and forget them. Kafka has a topic of one partition, because "
    "all others have one order per topic; with more partitions it can be faster.",
    "`trunkline bench` (Rust) measures Trunkline. A load generator in Go measures all others, each with the client "
    "library that is considered the fastest. Both make the same payloads and count the same way. Where a client "
    "combines what several callers give it into one request (Kafka's, Redis's), this was left on, as it is in use.",
    "“Fsynced” means that the server called fsync for what it acknowledged, and that the file system reported it as "
    "done. What is not fsynced survives the end of the server's process, but not that of the machine.",
    "Latency: the operating system wakes both load generators when a message is due, and they count from that moment, however "
    "late it was sent.",
    "Catch-up: the messages were written just before, and are in the page cache. How many are stored first differs: as "
    "many as the system accepted in the same time, and at most 800,000 for each second.",
    "Disk is how much the folder of a server grew while its messages were published. For Trunkline and pgmq it does not "
    "include PostgreSQL's write-ahead log, which is reused and takes up to 4 GB here. The logs of the others are what "
    "keeps their messages, and are counted.",
    "Trunkline and Kafka (batched) store compressed, the others do not. A quorum queue has a message in its write-ahead "
    "log and in a segment until the log is rolled over.",
    "Redis and RabbitMQ are the versions that the distribution packages, which are older than their newest releases.",
    "Server CPU is that of the server's processes while its workload was measured, without the client.",
    "The warm-up lets code that is compiled at run time become fast. Kafka's is 2.5 times as long, RabbitMQ's 1.5 times.",
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
    """Which of its two load generators was faster."""
    compared = [run for run in found["runs"] if "rates_by_client" in run]
    if not compared:
        return []
    counts = []
    for workload in dict.fromkeys(run["workload"] for run in compared):
        wins = [run["rates_by_client"] for run in compared if run["workload"] == workload]
        own = sum(rates["redis-benchmark"] > rates["rueidis"] for rates in wins)
        counts.append(f"{workload}: {own} of {len(wins)}")
    return [
        "Workloads that publish by pipelines were run a second time with Redis's own redis-benchmark, which sends the same "
        "command with another number each time, and the faster of the two counts. redis-benchmark was faster in "
        f"{'; '.join(told)} of the measurements. Acknowledgements and CPU are those of rueidis."
    ]


def clean(text: str) -> str:
    """A reason in one line, with the machine's paths removed."""
    return re.sub(r"(?:/[\w.+@-]+){2,}/?", "…", " ".join(text.split()))[:400]
