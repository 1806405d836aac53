"""Generates the stubs, as trunkline.v1, whenever the package is built or installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        protos = Path(self.root).parent.parent / "proto"
        # A source distribution contains the stubs in place of the protos.
        if protos.is_dir():
            generate(protos, Path(self.root) / "src")


def generate(protos: Path, sources: Path) -> None:
    stubs = sources / "trunkline" / "v1"
    shutil.rmtree(stubs, ignore_errors=True)
    # protoc looks for mypy-protobuf, its plugin for the types of the stubs, on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={protos}"),
            *(f"--python_out={sources}", f"--pyi_out={sources}"),
            *(f"--grpc_python_out={sources}", f"--mypy_grpc_out=quiet:{sources}"),
            *(str(file) for file in sorted(protos.glob("trunkline/v1/*.proto"))),
        ],
        env=os.environ | {"PATH": path},
        check=True,
    )
    (stubs / "__init__.py").write_text('"""The stubs, generated from the protos."""\n')
