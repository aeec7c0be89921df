"""The short kill matrix: killed at random moments and in each phase of saving, a training ends with an undisturbed one's bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.training.checkpoint import PHASES
from tests.scenarios.conftest import ROOT, environment


@pytest.mark.slow
def test_no_kill_loses_or_changes_anything(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "benchmarks" / "kill_matrix.py", "--kills", "24", "--plain", "1"]
    where = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 24
    assert all(figures["kills by phase"][phase] for phase in ("random", *PHASES))
    assert figures["of fresh interpreters"] == 1
    assert figures["newest checkpoint damaged as well"]
    assert figures["lost"] == figures["different"] == figures["an undisturbed fork differs in"] == []
    control = {name.split("/")[-1] for name in figures["control, another seed, differs in"]}
    assert {"weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "curve.json"} <= control
