"""That the benchmark of the two forms runs; its figures stand in docs/data.md."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.data.files import layout, save
from tests.scenarios.conftest import ROOT, environment


@pytest.mark.slow
def test_both_forms_and_the_store_are_written_and_read(tmp_path: Path) -> None:
    file = save(tmp_path / "x.npz", layout())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.shards", str(file), "--moto", "--rounds", "2"]
        done = subprocess.run(command, cwd=ROOT, env=environment(Path(folder)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("prepare plain", "prepare s3", "read bare", "read shards", "read shards + sha256", "read s3 + sha256"):
        assert f"{name}:" in done.stdout
