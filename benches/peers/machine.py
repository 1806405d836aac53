"""Describes the machine, as far as the figures depend on it."""

from __future__ import annotations

import os
import platform
import re
import statistics
import tempfile
import time
from pathlib import Path


def describe(data_dir: Path) -> dict[str, str]:
    median, slowest = fsync_times(data_dir)
    return {
        "cores": f"{len(os.sched_getaffinity(0))} ({processor()})",
        "memory": f"{memory_gib():.0f} GiB",
        "system": f"{platform.system()} {kernel()}",
        "file system": file_system(data_dir),
        "fsync": f"4 KiB appended and fdatasynced in {median:.2f} ms (median), {slowest:.2f} ms (99th percentile)",
    }


def processor() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def kernel() -> str:
    """The kernel's version, without the suffix of a distribution."""
    found = re.match(r"[0-9.]+", platform.release())
    return found[0] if found else "?"


def memory_gib() -> float:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) / 2**20 if found else 0.0


def file_system(folder: Path) -> str:
    """The type of the file system that contains the folder."""
    folder = folder.resolve()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    of_folder = [(len(at), kind) for at, kind in mounts if folder.is_relative_to(at)]
    return max(of_folder, key=lambda mount: mount[0])[1]


def fsync_times(folder: Path, times_tried: int = 200) -> tuple[float, float]:
    """The time to write 4 KiB durably, in milliseconds: the median and the 99th percentile."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times_tried):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def wait_until_quiet(patience: float = 30.0, quiet: float = 0.1) -> float:
    """Waits until other processes use little of the cores, for a limited number of seconds.

    Returns the share that they used at the end, from 0 to 1."""
    deadline = time.monotonic() + patience
    while True:
        busy_before, all_before = core_ticks()
        time.sleep(0.5)
        busy, total = core_ticks()
        share = (busy - busy_before) / max(total - all_before, 1)
        if share <= quiet or time.monotonic() >= deadline:
            return share


def core_ticks() -> tuple[int, int]:
    """The ticks in which the cores were busy since the machine started, and all ticks."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def disk_use(folder: Path) -> int:
    """The size on disk of all files in a folder, in bytes."""
    used = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                used += os.lstat(Path(place) / name).st_blocks * 512
            except FileNotFoundError:
                pass  # a server removed the file in the meantime
    return used
