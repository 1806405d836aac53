"""Runs `trunkline bench`, each time with a broker on a new database, and formats its figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: A column of a table: its heading, how to find the value in a result, and the value's format.
Figure = tuple[str, Callable[[dict], float | None], str]


def found(*path: str) -> Callable[[dict], float | None]:
    """Returns a function that finds a figure in a result by its path; None if it is not there."""

    def find(result: dict) -> float | None:
        value: dict | float | None = result
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, int | float) else None

    return find


PUBLISHED: Figure = ("published/s", found("published", "messages_per_second"), ",.0f")
CONSUMED: Figure = ("delivered/s", found("consumed", "messages_per_second"), ",.0f")
ACKNOWLEDGED: Figure = ("acknowledged p50 ms", found("published", "acknowledged_ms", "p50"), ".2f")
ACKNOWLEDGED_99: Figure = ("p99 ms", found("published", "acknowledged_ms", "p99"), ".2f")
DELIVERED: Figure = ("delivered p50 ms", found("consumed", "delivered_ms", "p50"), ".2f")
DELIVERED_99: Figure = ("p99 ms", found("consumed", "delivered_ms", "p99"), ".2f")
DISK: Figure = ("disk B/message", found("database", "disk_bytes_per_message"), ".0f")

#: What benches measure of one version beside another: the arguments of `trunkline bench`, and the
#: figures. They all take about as many seconds as they are told.
WORKLOADS: dict[str, tuple[list[str], list[Figure]]] = {
    "batched": (["publish", "--duration", "{seconds}s"], [PUBLISHED]),
    "single": (["publish", "--producers", "64", "--batch", "1", "--in-flight", "256", "--duration", "{seconds}s"], [PUBLISHED]),
    "unary": (["publish", "--unary", "--producers", "1", "--batch", "1", "--in-flight", "256", "--duration", "{seconds}s"],
              [PUBLISHED, ACKNOWLEDGED]),
    "large": (["publish", "--size", "1024", "--duration", "{seconds}s"], [PUBLISHED]),
    "catch-up": (["consume", "--messages", "{messages}"], [CONSUMED]),
    "both": (["both", "--duration", "{seconds}s"], [PUBLISHED, CONSUMED]),
    "latency": (["latency", "--rate", "5000", "--duration", "{seconds}s"], [DELIVERED, DELIVERED_99]),
    "fan-out": (["fanout", "--consumers", "100", "--messages", "{copied}"], [CONSUMED]),
}  # fmt: skip


def words(workload: str, seconds: int) -> list[str]:
    """Returns the arguments of `trunkline bench` for a workload that takes about some seconds. Those
    that end after a number of messages get a number that takes about as long."""
    amounts = {"seconds": seconds, "messages": 2_000_000 * seconds, "copied": 50_000 * seconds}
    return [word.format(**amounts) for word in WORKLOADS[workload][0]]


def run(program: Path, *benches: Sequence[str]) -> list[dict]:
    """Runs benches one after another with one broker, all with the same program; returns the results."""
    script = "\n".join(['set -e', *('"$TRUNKLINE_BIN" bench ' + " ".join(words) + " --output json"
                                    for words in benches)])  # fmt: skip
    done = subprocess.run(
        [ROOT / "clients/with-broker", "bash", "-c", script],
        env={**os.environ, "TRUNKLINE_BIN": str(program), "TRUNKLINE_ONE_BROKER": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"a run failed: {done.stderr.strip()}")
    return list(documents(done.stdout))


def documents(text: str) -> list[dict]:
    """Parses concatenated JSON documents."""
    found, place, decoder = [], 0, json.JSONDecoder()
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        document, place = decoder.raw_decode(text, place)
        found.append(document)
    return found


def cell(values: Sequence[float | None], form: str) -> str:
    """The median, followed by the smallest and largest value if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = format(statistics.median(known), form)
    if len(known) == 1:
        return text
    return f"{text} ({format(min(known), form)}–{format(max(known), form)})"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" + " ---: |" * (len(headings) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
