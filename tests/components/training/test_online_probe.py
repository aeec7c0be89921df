"""Evaluations of the embeddings while training runs: what is measured, where it goes, and that nothing else changes by it."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from components import prepare, train
from components.common import artifact
from components.common.settings import DataSettings, ModelSettings, TrainSettings
from components.tracking.client import connect, training_run
from components.training import online_probe
from components.training.online_probe import COLUMNS, TIMESTEPS, OnlineProbe, spread
from data.errors import DataError
from data.format import open_dataset
from model.dier import DiER
from model.errors import PermanentTrainingError
from model.features import GAP_IMAGES, shuffled_gap
from model.training.trainer import Trainer
from tests.components.test_train_embed_probe import differing, unlabelled, verdict_of

pytestmark = pytest.mark.slow  # they share trainings that take longer than a second

ROOT = Path(__file__).parents[3]
MODEL = ModelSettings(width=32, heads=2, embed_dim=16)
TRAIN = TrainSettings(steps=30, warmup_steps=5, batch_size=32, log_every=10, checkpoint_every=10, min_gap=0)
EVERY_10 = TRAIN.model_copy(update={"probe_every": 10})
ONCE = EVERY_10.model_copy(update={"steps": 10})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of digits and a stand-in for its verdict."""
    folder = tmp_path_factory.mktemp("data")
    prepare.run(data_settings=DataSettings(), out=folder / "dataset")
    verdict_of(folder / "dataset", folder / "verdict")
    return folder


def do(data: Path, out: Path, settings: TrainSettings = EVERY_10) -> Path:
    """Train; gives the work folder."""
    train.run(MODEL, settings, data / "dataset", data / "verdict", out / "work", out / "model")
    return next((out / "work").iterdir())


def rows(work: Path) -> list[dict[str, str]]:
    with (work / "watch.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def watched(data: Path, migrated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A training with evaluations, in a store of its own; gives its folder."""
    folder = tmp_path_factory.mktemp("watched")
    shutil.copyfile(migrated_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        do(data, folder)
        yield folder


def test_weights_curve_and_summary_are_the_same_bytes_without_it(watched: Path, data: Path, tmp_path: Path) -> None:
    do(data, tmp_path, TRAIN)
    assert not list((tmp_path / "work").glob("*/watch.csv"))
    assert differing(watched / "model", tmp_path / "model") == {"settings.json"}


def test_an_evaluation_draws_nothing_from_the_global_generators(data: Path, tmp_path: Path) -> None:
    """Not that training draws from them: it is to stay so when something does."""
    states = []

    class Recording(OnlineProbe):
        def evaluate(self, *args: object) -> dict[str, float] | None:
            before = torch.get_rng_state(), np.random.get_state()[1].copy()
            found = super().evaluate(*args)
            states.append((before, (torch.get_rng_state(), np.random.get_state()[1])))
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_probe, "OnlineProbe", Recording)
        do(data, tmp_path, ONCE)
    assert len(states) == 1
    for before, after in states:
        assert torch.equal(before[0], after[0])
        assert np.array_equal(before[1], after[1])


def test_what_is_measured_stands_in_the_file_and_in_mlflow(watched: Path, data: Path) -> None:
    work = next((watched / "work").iterdir())
    found = rows(work)
    assert list(found[0]) == COLUMNS
    assert [row["step"] for row in found] == ["10", "20", "30"]
    assert all(0.05 < float(row[f"probe_t{t:03d}"]) <= 1 for row in found for t in TIMESTEPS)
    summary = artifact.read(watched / "model", "model").json("summary.json")
    client = connect()
    run = training_run(client, summary["training_key"], "e")
    for name in COLUMNS[1:]:
        logged = [(m.step, pytest.approx(m.value, rel=1e-4)) for m in client.get_metric_history(run.id, f"watch/{name}")]
        assert logged == [(int(row["step"]), float(row[name])) for row in found]
    peaks = [m.value for m in client.get_metric_history(run.id, "train/peak_memory_mib")]
    assert len(peaks) == 3
    assert 50 < peaks[0] < peaks[-1] + 1  # Linux counts pages by processor, so a peak may be told some pages lower again
    assert peaks[-1] < 10_000


def test_the_figures_are_those_of_the_final_model_at_the_last_step(watched: Path, data: Path) -> None:
    from model.weights import load_model

    last = rows(next((watched / "work").iterdir()))[-1]
    dataset = open_dataset(data / "dataset")
    probe = OnlineProbe(dataset, 10, seed=TRAIN.seed, file=watched / "again" / "watch.csv")
    found = probe.evaluate(30, lambda: load_model(watched / "model"))
    assert {name: float(last[name]) for name in COLUMNS[1:]} == pytest.approx(found, rel=1e-4)
    assert len(dataset.split("val")) < GAP_IMAGES  # so that all of val is in the gap
    expected = shuffled_gap(load_model(watched / "model"), np.asarray(dataset.split("val").images), TIMESTEPS, seed=0)
    assert [found[f"gap_t{row['t']:03d}"] for row in expected] == pytest.approx([row["ratio"] for row in expected], rel=1e-4)


def test_a_stopped_training_evaluates_no_step_twice(watched: Path, data: Path, tmp_path: Path, store: str) -> None:
    class StoppedError(Exception):
        pass

    class Stopping(OnlineProbe):
        def on_step(self, trainer: Trainer) -> None:
            super().on_step(trainer)
            if trainer.step == 20:
                raise StoppedError

    settings = EVERY_10.model_copy(update={"checkpoint_every": 15})  # of step 15: step 20 comes again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_probe, "OnlineProbe", Stopping)
        with pytest.raises(StoppedError):
            do(data, tmp_path, settings)
    work = next((tmp_path / "work").iterdir())
    with (work / "watch.csv").open("a") as file:
        file.write("30,1.0")  # cut off
    do(data, tmp_path, settings)
    assert rows(work) == rows(next((watched / "work").iterdir()))
    client = connect()
    key = artifact.read(tmp_path / "model", "model").json("summary.json")["training_key"]
    run = training_run(client, key, "e")
    for name in ("watch/probe_t100", "train/loss", "train/images_per_second"):
        assert [m.step for m in client.get_metric_history(run.id, name)] == [10, 20, 30]


def test_images_without_labels_are_evaluated_without_a_probe(
    data: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabelled(data, tmp_path)
    (row,) = rows(do(tmp_path, tmp_path, ONCE))
    assert row["probe_t100"] == ""
    assert float(row["gap_t100"]) > 0.9
    said = capsys.readouterr().err
    assert "step 10: shuffling v_t" in said
    assert "probe on val" not in said


def test_what_goes_wrong_in_an_evaluation_does_not_end_the_training(
    data: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_probe, "MAX_ITER", -1)  # scikit-learn refuses it
        do(data, tmp_path, ONCE)
    assert capsys.readouterr().err.count("could not evaluate the embeddings") == 1
    assert artifact.read(tmp_path / "model", "model")


def test_no_val_images_are_said_before_training(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data / "dataset")
    dataset.info.counts["val"] = 0
    with pytest.raises(DataError, match=r"train\.probe_every needs val images"):
        OnlineProbe(dataset, 10, seed=0, file=tmp_path / "watch.csv")


def test_an_encoder_killed_by_the_learning_rate_is_named_long_before_the_end(
    data: Path, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For real: at lr 0.1 v_t becomes the same for every image, while the loss may go on falling."""
    settings = TrainSettings(
        steps=20_000, warmup_steps=100, batch_size=16, log_every=20, lr=0.1, lr_decay="constant", probe_every=100
    )
    with pytest.raises(PermanentTrainingError, match=r"dead encoder.*lower train\.lr"):
        do(data, tmp_path, settings)
    assert int(rows(next((tmp_path / "work").iterdir()))[-1]["step"]) < 2000
    assert "so far the encoder is dead" in capsys.readouterr().err


def test_spread_is_none_where_all_are_alike_and_one_where_they_have_nothing_in_common() -> None:
    rng = np.random.default_rng(0)
    v = rng.normal(size=(2000, 16)).astype(np.float32)
    assert spread(v) == pytest.approx(1, abs=0.01)
    assert spread(np.ones_like(v) + 0.01 * v) == pytest.approx(0.01, rel=0.05)
    assert spread(np.zeros_like(v)) == 0


PEAKS = """
import numpy, torch
from components.common.peak_memory import peak_memory

def peak():
    print(peak_memory(torch.device("cpu"))["peak_memory_mib"])
peak()
block = numpy.ones(200 * 2**20, numpy.uint8)
peak()
del block
peak()
"""


def test_memory_is_the_peak_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAKS], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    before, after, later = map(float, done.stdout.split())
    assert after - before == pytest.approx(200, abs=10)
    assert later == pytest.approx(after, abs=1)


def test_an_untrained_model_can_be_evaluated(data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data / "dataset")
    config = train.model_config(MODEL, 8, 8, 1, seed=0)
    logged: list[tuple[int, dict[str, float]]] = []
    probe = OnlineProbe(dataset, 10, seed=0, file=tmp_path / "watch.csv", log=lambda *point: logged.append(point))
    found = probe.evaluate(0, lambda: DiER(config).eval())
    assert found["gap_t100"] == pytest.approx(1, abs=1e-3)  # nothing is learnt yet
    assert found["probe_t100"] > 0.2
    assert logged == [(0, pytest.approx(found, rel=1e-4))]
