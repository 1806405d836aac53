"""A PostgreSQL like the private one of Trunkline: the same binaries and settings."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from peers.base import Failed, Server
from tools import ROOT, call

#: The settings of src/embedded/cluster.rs. fsync and synchronous_commit are on by default.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
}
USER = "trunkline"


def provide() -> None:
    call([ROOT / "scripts/install-postgres"])


def version() -> str:
    words = call([binaries() / "postgres", "--version"]).split()
    return f"PostgreSQL {words[2]}"


def start(folder: Path) -> Server:
    """Starts a server with its socket in the folder."""
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    data = folder / "postgres"
    if user:
        shutil.chown(folder, user, user)
    run_as(user, [binaries() / "initdb", "--auth-local=trust", "--encoding=UTF8", "--locale=C", "--data-checksums",
                  "--username", USER, "-D", data], folder)  # fmt: skip
    options = {**SETTINGS, "unix_socket_directories": str(folder)}
    command = [binaries() / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
    server = Server(command, folder, user=user, stop_signal=signal.SIGINT)
    return server.wait_until(lambda: "ready to accept connections" in server.log())


def url(server: Server) -> str:
    return f"postgresql://{USER}@/postgres?host={server.folder}"


def execute(server: Server, script: Path) -> None:
    """Runs an SQL script."""
    call([binaries() / "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", url(server), "-f", script])


def run_as(user: str | None, command: list[str | Path], folder: Path) -> None:
    account = {"user": user, "group": user, "extra_groups": []} if user else {}
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, **account)
    if done.returncode != 0:
        raise Failed(f"{Path(words[0]).name} failed: {done.stderr.strip()[-1000:]}")


def binaries() -> Path:
    """The folder with the server binaries."""
    named = os.environ.get("TRUNKLINE_POSTGRES_BIN")
    if named:
        return Path(named)
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return versions[-1] if versions else Path(call(["pg_config", "--bindir"]).strip())
