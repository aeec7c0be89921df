"""A training that is killed goes on from its last checkpoint and ends with the very bytes of one that was not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components import artifact, prepare
from components.settings import DataSettings
from tests.scenarios.conftest import ROOT, environment

SETTINGS = ["train.steps=120", "train.warmup_steps=10", "train.checkpoint_every=20", "train.log_every=30", "train.min_gap=0"]


def start(folder: Path, run: str) -> subprocess.Popen:
    (folder / f"cwd-{run}").mkdir(exist_ok=True)
    words = [sys.executable, "-m", "pipeline.cli", "train", "--params", ROOT / "params.yaml"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    for name, place in {"dataset": "dataset", "verdict": "verdict", "work": f"work-{run}", "out": run}.items():
        words += [f"--{name}", folder / place]
    where = environment(folder) | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        list(map(str, words)),
        cwd=folder / f"cwd-{run}",  # each with an MLflow store of its own
        env=where,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a runner in the background hands it down ignored
    )


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_killed_training_ends_where_an_unstopped_one_does(tmp_path: Path, sent: signal.Signals) -> None:
    prepare.run(data_settings=DataSettings(), out=tmp_path / "dataset")
    fingerprint = artifact.read(tmp_path / "dataset", "dataset").fingerprint
    with artifact.create(tmp_path / "verdict", "verdict", {"dataset": fingerprint}) as made:
        artifact.write_json(made / "verdict.json", {"passed": True, "warnings": 0})  # a stand-in

    whole = start(tmp_path, "whole")
    stopped = start(tmp_path, "stopped")
    until = time.monotonic() + 120
    while not list((tmp_path / "work-stopped").glob("*/step-*.safetensors")) and time.monotonic() < until:
        time.sleep(0.02)
    stopped.send_signal(sent)
    said = stopped.communicate()[1]
    assert stopped.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130), said
    assert not (tmp_path / "stopped").exists()

    assert whole.wait(180) == 0, whole.stderr.read()
    again = start(tmp_path, "stopped")
    assert "going on from the checkpoint of step" in again.communicate()[1]
    assert again.returncode == 0
    first, second = (artifact.read(tmp_path / name, "model") for name in ("whole", "stopped"))
    assert first.fingerprint == second.fingerprint
