"""What `make image` asks of the builder, on engines of all kinds. The builder is a stand-in that writes down how it was called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$1" in
  network) printf '%b' "$NETWORKS" ;;
  create) echo container ;;
  image) echo 1000000 ;;
esac
"""


def build_line(folder: Path, builder: str, networks: str, extra_index: str) -> str:
    """The line by which the script has the image built, from a copy of what it reads."""
    (folder / "pipeline" / "image").mkdir(parents=True)
    shutil.copy(ROOT / "pipeline" / "image" / "build.sh", folder / "pipeline" / "image")
    shutil.copy(ROOT / "pyproject.toml", folder)
    program = folder / "bin" / builder
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "BUILDER": builder,
        "CALLS": str(folder / "calls"),
        "NETWORKS": networks,
        "PIP_INDEX_URL": "https://index.invalid/simple",
        "PIP_EXTRA_INDEX_URL": extra_index,
        "INDEX_PORT": "18999",
    }
    done = subprocess.run(
        [folder / "pipeline/image/build.sh"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    [line] = [call for call in (folder / "calls").read_text().splitlines() if call.startswith("build ")]
    return line


@pytest.mark.parametrize(
    ("builder", "networks", "extra_index", "on_host"),
    [
        ("docker", r"bridge\nhost\nnone\n", "", False),
        ("docker", r"host\nnone\n", "", True),  # dockerd --bridge=none, where a build finds no network "bridge"
        ("docker", r"host\nnone\n", "https://more.invalid/simple", True),
        ("docker", r"bridge\nhost\nnone\n", "file:///nowhere/simple", True),  # served to the build over loopback
        ("podman", r"podman\n", "", False),
    ],
)
def test_a_build_has_a_network(tmp_path: Path, builder: str, networks: str, extra_index: str, on_host: bool) -> None:
    assert ("--network host" in build_line(tmp_path, builder, networks, extra_index)) is on_host
