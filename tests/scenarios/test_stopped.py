"""A training that is killed goes on from its last checkpoint and ends with the very bytes of one that was not."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components import prepare
from components.common import artifact
from components.common.settings import DataSettings
from tests.scenarios.conftest import ROOT, environment

SETTINGS = ["model.width=32", "model.heads=2", "model.embed_dim=16"]
SETTINGS += ["train.steps=240", "train.warmup_steps=10", "train.checkpoint_every=20", "train.log_every=60", "train.min_gap=0"]


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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copyfile(migrated_store, folder / "empty.db")  # a kill while MLflow makes its tables would leave half of them
    prepare.run(data_settings=DataSettings(limit=300), out=folder / "dataset")
    fingerprint = artifact.read(folder / "dataset", "dataset").fingerprint
    with artifact.create(folder / "verdict", "verdict", {"dataset": fingerprint}) as made:
        artifact.write_json(made / "verdict.json", {"passed": True, "warnings": 0})  # a stand-in
    return folder


def newest(folder: Path, run: str) -> int:
    """The step of the newest checkpoint, 0 = none."""
    return max((int(path.name.removeprefix("step-")) for path in (folder / f"work-{run}").glob("*/step-*")), default=0)


def wait_until(true: Callable[[], object], training: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not true() and training.poll() is None and time.monotonic() < until:
        time.sleep(0.02)


def run_status(folder: Path, run: str) -> str:
    """What MLflow says of the training."""
    client = MlflowClient(f"sqlite:///{folder / f'cwd-{run}' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("dier").experiment_id])
    return str(found.info.status)


@pytest.mark.slow
def test_a_training_killed_three_times_ends_where_an_unstopped_one_does(prepared: Path) -> None:
    """By each of three signals, a checkpoint or more apart; each start goes on from the checkpoint that the last one left."""
    whole = start(prepared, "whole")
    step = 0
    for sent in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        stopped = start(prepared, "stopped")
        wait_until(lambda before=step: newest(prepared, "stopped") > before, stopped)
        stopped.send_signal(sent)
        said = stopped.communicate()[1]
        assert stopped.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 128 + sent), said
        assert not (prepared / "stopped").exists()
        assert ("going on from the checkpoint of step" in said) == (step > 0)
        assert not step or f"going on from the checkpoint of step {step}\n" in said
        step = newest(prepared, "stopped")
        if sent != signal.SIGKILL:
            last = said.splitlines()[-1]
            assert last == f"dier: error: stopped after step {step}, which is saved: the same command goes on from there"
            assert len(list((prepared / "work-stopped").glob(f"*/step-{step:09d}/manifest.json"))) == 1
            assert run_status(prepared, "stopped") == "KILLED"

    assert whole.wait(180) == 0, whole.stderr.read()
    again = start(prepared, "stopped")
    said = again.communicate()[1]
    assert again.returncode == 0, said
    assert f"going on from the checkpoint of step {step}\n" in said
    assert run_status(prepared, "stopped") == "FINISHED"
    first, second = (artifact.read(prepared / name, "model") for name in ("whole", "stopped"))
    assert first.fingerprint == second.fingerprint
    rates = next((prepared / "work-stopped").glob("*/rates.csv")).read_text().splitlines()
    assert [int(line.split(",")[0]) for line in rates] == [60, 120, 180, 240]


@pytest.mark.slow
def test_a_second_signal_ends_at_once(prepared: Path) -> None:
    training = start(prepared, "signalled", "train.batch_size=300", "model.depth=24", "model.width=128")  # a step takes seconds
    wait_until(lambda: list((prepared / "work-signalled").glob("*/.lock")), training)  # it begins
    time.sleep(0.5)  # well in the first step
    training.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert training.poll() is None
    training.send_signal(signal.SIGTERM)
    assert training.wait(2) == 143
    assert not newest(prepared, "signalled")
