"""Gets servers and clients from the registries in which they are published."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

#: Debian starts a service as soon as it is installed, unless this script forbids it.
POLICY = Path("/usr/sbin/policy-rc.d")


class Missing(Exception):
    """Something is not available on this machine; the text says why."""


class Tools:
    """A folder of programs that is kept between runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True, exist_ok=True)

    @property
    def load(self) -> Path:
        return self.bin / "load"

    def build_load(self) -> None:
        """Builds the load generator, which is quick thanks to Go's cache."""
        need("go", "the Go toolchain (https://go.dev)")
        call(["go", "build", "-o", self.load, "."], cwd=HERE / "load")

    def go_install(self, module: str, version: str) -> Path:
        name = module.rstrip("/").split("/")[-1]
        if name.startswith("v") and name[1:].isdigit():
            name = module.split("/")[-2]
        made = self.bin / f"{name}-{version}"
        if not made.exists():
            need("go", "the Go toolchain (https://go.dev)")
            say(f"building {name} {version}")
            call(["go", "install", f"{module}@{version}"], env={"GOBIN": str(self.bin)})
            (self.bin / name).rename(made)
        return made

    def maven_jars(self, pom: Path, folder: str) -> Path:
        """Downloads all jars that a pom depends on, and returns their folder."""
        jars = self.folder / folder
        if not jars.exists():
            need("mvn", "Maven")
            say(f"downloading {folder} and its dependencies")
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                made = Path(scratch) / "jars"
                call(["mvn", "-q", "-B", "--no-transfer-progress", "-f", pom,
                      f"-DoutputDirectory={made}", "dependency:copy-dependencies"])  # fmt: skip
                made.rename(jars)
        return jars

    def crate_file(self, crate: str, version: str, path: str) -> Path:
        """Returns a file out of a Rust crate."""
        kept = self.folder / f"{crate}-{version}-{Path(path).name}"
        if not kept.exists():
            need("cargo", "Rust's cargo")
            say(f"downloading {Path(path).name} of {crate} {version}")
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                package = Path(scratch)
                (package / "lib.rs").touch()
                (package / "Cargo.toml").write_text(
                    '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n'
                    '[lib]\npath = "lib.rs"\n[workspace]\n[dependencies]\n'
                    f'{crate} = {{ version = "={version}", default-features = false }}\n'
                )
                metadata = call(["cargo", "metadata", "--format-version", "1"], cwd=package)
                manifests = [p["manifest_path"] for p in json.loads(metadata)["packages"] if p["name"] == crate]
                shutil.copyfile(Path(manifests[0]).parent / path, kept)
        return kept

    def apt(self, package: str, program: str | Path) -> Path:
        """Returns a program of a Debian package, which is installed if the program is missing."""
        found = shutil.which(str(program))
        if found is None:
            if shutil.which("apt-get") is None or os.geteuid() != 0:
                raise Missing(f"{program} is missing: install {package}, or run this as root on a machine with apt-get")
            say(f"{program} is missing: installing the package {package} with apt-get")
            install(package)
            found = shutil.which(str(program))
        if found is None:
            raise Missing(f"the package {package} does not contain {program}")
        return Path(found)


def install(package: str) -> None:
    refuses = not POLICY.exists()
    if refuses:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        call(["apt-get", "update", "-qq"])
        call(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
             env={"DEBIAN_FRONTEND": "noninteractive"})  # fmt: skip
    finally:
        if refuses:
            POLICY.unlink()


def need(program: str, what: str) -> None:
    if shutil.which(program) is None:
        raise Missing(f"{what} is not on this machine")


def call(command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise Missing(f"`{' '.join([Path(words[0]).name, *words[1:3]])} …` failed: {said}")
    return done.stdout


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
