"""Writes the report of the measurements, in Markdown."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from notes import notes

TITLES = {
    "unary": "Publish, one message per request, 256 callers that each wait",
    "pipelined": "Publish, one message per request, 64 connections or streams with many in flight",
    "batched": "Publish, batched",
    "batched-1k": "Publish, batched, payloads of 1 KiB",
    "catch-up": "Catch up: one consumer reads what is stored",
    "both": "Publish and consume at the same time",
    "latency": "Latency at a fixed rate",
}
#: The system that all others are compared with.
OURS = "trunkline"


class Runs:
    """The successful measurements of one workload, for all systems."""

    def __init__(self, found: dict, workload: str) -> None:
        self.runs = [run for run in found["runs"] if run["workload"] == workload and "error" not in run]

    def values(self, peer: str, value: Callable[[dict], float | None]) -> list[float]:
        got = (value(run) for run in self.runs if run["peer"] == peer)
        return [one for one in got if one is not None]

    def median(self, peer: str, value: Callable[[dict], float | None]) -> float | None:
        got = self.values(peer, value)
        return statistics.median(got) if got else None

    def has(self, peer: str) -> bool:
        return any(run["peer"] == peer for run in self.runs)

    def incomplete(self, peer: str) -> bool:
        return any(not run["consumed"].get("complete", True) for run in self.runs if run["peer"] == peer)


def published(run: dict) -> float:
    return run["published"]["messages_per_second"]


def consumed(run: dict) -> float:
    return run["consumed"]["messages_per_second"]


def acknowledged(percent: str) -> Callable[[dict], float]:
    return lambda run: run["published"]["acknowledged_ms"][percent]


def delivered(percent: str) -> Callable[[dict], float]:
    return lambda run: run["consumed"]["delivered_ms"][percent]


def cpu(run: dict) -> float | None:
    """Microseconds of server CPU per published message, or per message read if only reading was measured."""
    seconds = run.get("server_cpu_seconds")
    part = run["consumed"] if run["workload"] == "catch-up" else run["published"]
    return seconds / part["messages"] * 1e6 if seconds else None


def disk(run: dict) -> float:
    """Bytes on disk per message, without logs that are recycled."""
    stored = run.get("stored_messages", run["published"]["messages"])
    return (run["disk"]["bytes"] - run["disk"]["recycled_log_bytes"]) / stored


def markdown(found: dict) -> str:
    options = found["options"]
    lines = [
        "# Trunkline beside other systems",
        "",
        f"Made by [`benches/peers/run`](peers/README.md) on {found['date']}: {options['rounds']} rounds of "
        f"{options['seconds']:g} s per workload, medians, with the smallest and the largest in brackets. All in one run, "
        "workload by workload, one server at a time, each started anew on an empty folder and warmed up. Payloads are "
        "100 bytes like the lines of a log, unless stated otherwise.",
        "",
        "**Trunkline ÷ it** is Trunkline's rate divided by that system's: above 1 Trunkline is faster, below 1 it is slower.",
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in found["machine"].items()),
        f"| before each measurement: fsync | {fsync_range(found)} |",
        f"| before each measurement: cores taken by other processes | {others(found)} |",
        "",
        "| system | version | on disk when a message is acknowledged |",
        "|---|---|---|",
        *(f"| {peer['title']} | {peer['version']} | {peer['durability']} |" for peer in found["peers"].values()),
        "",
        "Clients: " + ", ".join(f"{name} {version}" for name, version in found["clients"].items()) + ".",
    ]
    tables = {"catch-up": catch_up_table, "both": both_table, "latency": latency_table}
    for workload, title in TITLES.items():
        runs = Runs(found, workload)
        if runs.runs:
            if workload == "latency":
                title += f" of {options['rate']:,} messages/s"
            lines += ["", f"## {title}", "", *tables.get(workload, publish_table)(found, runs)]
    return "\n".join([*lines, "", *notes(found)]) + "\n"


def publish_table(found: dict, runs: Runs) -> list[str]:
    rows = []
    for name, peer in present(found, runs):
        rows.append([
            peer["title"], peer["durability"], rate(runs, name, published), ratio(runs, name, published),
            pair(runs, name, acknowledged), number(runs.median(name, cpu), 1), number(runs.median(name, disk), 0),
        ])  # fmt: skip
    return table(["system", "durable", "messages/s", "Trunkline ÷ it", "acknowledged, p50 / p99 ms",
                  "server CPU, µs per message", "disk, B per message"], rows)  # fmt: skip


def catch_up_table(found: dict, runs: Runs) -> list[str]:
    rows = []
    for name, peer in present(found, runs):
        star = " *" if runs.incomplete(name) else ""
        rows.append([
            peer["title"], rate(runs, name, consumed) + star, ratio(runs, name, consumed),
            number(runs.median(name, cpu), 1), number(runs.median(name, lambda run: run["consumed"]["messages"]), 0),
        ])  # fmt: skip
    head = ["system", "messages/s", "Trunkline ÷ it", "server CPU, µs per message", "messages read"]
    return [*table(head, rows), *starred(rows)]


def both_table(found: dict, runs: Runs) -> list[str]:
    rows = []
    for name, peer in present(found, runs):
        star = " *" if runs.incomplete(name) else ""
        rows.append([
            peer["title"], peer["durability"], rate(runs, name, published), ratio(runs, name, published),
            rate(runs, name, consumed) + star, ratio(runs, name, consumed), number(runs.median(name, cpu), 1),
        ])  # fmt: skip
    head = ["system", "durable", "published/s", "Trunkline ÷ it", "consumed/s", "Trunkline ÷ it",
            "server CPU, µs per message"]  # fmt: skip
    return [*table(head, rows), *starred(rows)]


def latency_table(found: dict, runs: Runs) -> list[str]:
    rows = []
    for name, peer in present(found, runs):
        rows.append([
            peer["title"], peer["durability"], number(runs.median(name, published), 0),
            spread(runs, name, delivered("p50"), 2), spread(runs, name, delivered("p99"), 1),
            spread(runs, name, acknowledged("p50"), 2), spread(runs, name, acknowledged("p99"), 1),
            inverse(runs, name, delivered("p50")), inverse(runs, name, delivered("p99")),
        ])  # fmt: skip
    head = ["system", "durable", "messages/s reached", "delivered p50 ms", "p99 ms", "acknowledged p50 ms", "p99 ms",
            "delivered p50: it ÷ Trunkline", "p99: it ÷ Trunkline"]  # fmt: skip
    return [*table(head, rows), "", "Measured from when each message was due. In the last two columns, unlike with "
            "rates, the other system's time is divided by Trunkline's: above 1 Trunkline is quicker, below 1 it is "
            "slower."]  # fmt: skip


def starred(rows: list[list[str]]) -> list[str]:
    if not any("*" in cell for row in rows for cell in row):
        return []
    return ["", "\\* The consumer had not read everything when its time was over; the rate is that of what it read."]


def present(found: dict, runs: Runs) -> Iterable[tuple[str, dict]]:
    return ((name, peer) for name, peer in found["peers"].items() if runs.has(name))


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    align = ["---" if name in ("system", "durable") else "---:" for name in head]
    return ["| " + " | ".join(cells) + " |" for cells in [head, align, *rows]]


def rate(runs: Runs, peer: str, value: Callable[[dict], float]) -> str:
    return spread(runs, peer, value, 0)


def spread(runs: Runs, peer: str, value: Callable[[dict], float], digits: int) -> str:
    got = runs.values(peer, value)
    middle = f"{statistics.median(got):,.{digits}f}"
    return f"{middle} ({min(got):,.{digits}f}–{max(got):,.{digits}f})" if len(got) > 1 else middle


def pair(runs: Runs, peer: str, value: Callable[[str], Callable[[dict], float]]) -> str:
    return f"{number(runs.median(peer, value('p50')), 1)} / {number(runs.median(peer, value('p99')), 1)}"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def ratio(runs: Runs, peer: str, value: Callable[[dict], float]) -> str:
    return quotient(runs.median(OURS, value), runs.median(peer, value), peer)


def inverse(runs: Runs, peer: str, value: Callable[[dict], float]) -> str:
    return quotient(runs.median(peer, value), runs.median(OURS, value), peer)


def quotient(above: float | None, below: float | None, peer: str) -> str:
    if peer == OURS or above is None or not below:
        return ""
    return f"{above / below:.1f}" if above / below >= 10 else f"{above / below:.2f}"


def fsync_range(found: dict) -> str:
    times = [run["fsync_ms"] for run in found["runs"] if "fsync_ms" in run]
    if not times:
        return "not measured"
    return f"{statistics.median(times):.2f} ms (median; {min(times):.2f}–{max(times):.2f})"


def others(found: dict) -> str:
    """How much of the cores other processes used."""
    shares = [run["taken_by_others"] for run in found["runs"] if "taken_by_others" in run]
    if not shares:
        return "not measured"
    loud = sum(share > 0.1 for share in shares)
    return f"{statistics.median(shares):.0%} (median); more than 10% before {loud} of {len(shares)}"


def clients(go_mod: Path) -> dict[str, str]:
    """The client libraries of the load generator, with their versions."""
    names = {
        "redis/rueidis": "rueidis", "nats-io/nats.go": "nats.go", "orbit.go/jetstreamext": "orbit jetstreamext",
        "twmb/franz-go": "franz-go", "rabbitmq/amqp091-go": "amqp091-go",
        "rabbitmq/rabbitmq-stream-go-client": "rabbitmq-stream-go-client", "jackc/pgx/v5": "pgx",
    }  # fmt: skip
    required = dict(re.findall(r"^\s*(\S+) v(\S+)$", go_mod.read_text(), re.MULTILINE))
    return {
        name: version
        for end, name in names.items()
        for module, version in required.items()
        if module.endswith(end)
    }


def summary(run: dict) -> str:
    """A measurement in one line."""
    if "error" in run:
        return f"failed: {run['error'].splitlines()[0][:200]}"
    parts = []
    if run["workload"] == "latency":
        parts.append(f"delivered p50 {delivered('p50')(run):.2f} ms, p99 {delivered('p99')(run):.1f} ms")
    if run["workload"] != "catch-up":
        parts.append(f"published {published(run):,.0f}/s")
    if "consumed" in run:
        parts.append(f"consumed {consumed(run):,.0f}/s")
    return ", ".join(parts)
