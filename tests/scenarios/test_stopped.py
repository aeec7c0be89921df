"""A training that is killed goes on from its last checkpoint and ends with the very bytes of one that was not."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components import prepare
from components.common import artifact
from components.common.settings import DataSettings
from tests.scenarios.conftest import ROOT, environment

SETTINGS = ["train.steps=120", "train.warmup_steps=10", "train.checkpoint_every=20", "train.log_every=30", "train.min_gap=0"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with MLflow's tables: a kill while MLflow makes them would leave half of them."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


def start(folder: Path, run: str, *more: str) -> subprocess.Popen:
    if not (folder / f"cwd-{run}").is_dir():
        (folder / f"cwd-{run}").mkdir()
        shutil.copyfile(folder / "empty.db", folder / f"cwd-{run}" / "mlflow.db")
    words = [sys.executable, "-m", "pipeline.cli", "train", "--params", ROOT / "params.yaml"]
    words += [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
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


@pytest.fixture
def prepared(tmp_path: Path, store: Path) -> Path:
    shutil.copyfile(store, tmp_path / "empty.db")
    prepare.run(data_settings=DataSettings(), out=tmp_path / "dataset")
    fingerprint = artifact.read(tmp_path / "dataset", "dataset").fingerprint
    with artifact.create(tmp_path / "verdict", "verdict", {"dataset": fingerprint}) as made:
        artifact.write_json(made / "verdict.json", {"passed": True, "warnings": 0})  # a stand-in
    return tmp_path


def wait_for_a_checkpoint(folder: Path, run: str) -> None:
    until = time.monotonic() + 120
    while not list((folder / f"work-{run}").glob("*/step-*")) and time.monotonic() < until:
        time.sleep(0.02)


def run_status(folder: Path, run: str) -> str:
    """What MLflow says of the training."""
    client = MlflowClient(f"sqlite:///{folder / f'cwd-{run}' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("dier").experiment_id])
    return str(found.info.status)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_killed_training_ends_where_an_unstopped_one_does(prepared: Path, sent: signal.Signals) -> None:
    whole = start(prepared, "whole")
    stopped = start(prepared, "stopped")
    wait_for_a_checkpoint(prepared, "stopped")
    stopped.send_signal(sent)
    said = stopped.communicate()[1]
    assert stopped.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 128 + sent), said
    assert not (prepared / "stopped").exists()
    if sent != signal.SIGKILL:
        last = said.splitlines()[-1]
        step = int(re.fullmatch(r"dier: error: stopped after step (\d+), which is saved: .* goes on from there", last)[1])
        assert len(list((prepared / "work-stopped").glob(f"*/step-{step:09d}/manifest.json"))) == 1
        assert run_status(prepared, "stopped") == "KILLED"

    assert whole.wait(180) == 0, whole.stderr.read()
    again = start(prepared, "stopped")
    said = again.communicate()[1]
    assert again.returncode == 0, said
    assert "going on from the checkpoint of step" in said
    if sent != signal.SIGKILL:
        assert f"going on from the checkpoint of step {step}\n" in said
    assert run_status(prepared, "stopped") == "FINISHED"
    first, second = (artifact.read(prepared / name, "model") for name in ("whole", "stopped"))
    assert first.fingerprint == second.fingerprint
    rates = next((prepared / "work-stopped").glob("*/rates.csv")).read_text().splitlines()
    assert [int(line.split(",")[0]) for line in rates] == [30, 60, 90, 120]


@pytest.mark.slow
def test_a_second_signal_ends_at_once(prepared: Path) -> None:
    training = start(prepared, "stopped", "train.batch_size=1000", "model.depth=24")  # a step takes seconds
    until = time.monotonic() + 120
    while "key" not in (said := training.stderr.readline()) and time.monotonic() < until:
        assert training.poll() is None, said
    time.sleep(8)  # well in the first step
    training.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert training.poll() is None
    training.send_signal(signal.SIGTERM)
    assert training.wait(2) == 143
    assert not list((prepared / "work-stopped").glob("*/step-*"))
