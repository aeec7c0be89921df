"""Scattered digits through every step from prepare to report: copies are counted as what they are all the way."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components import embed, prepare, probe, report, train, validate
from components.common import artifact
from components.common.settings import (
    DataSettings,
    EmbedSettings,
    ModelSettings,
    ProbeSettings,
    RegisterSettings,
    TrainSettings,
    ValidateSettings,
)
from components.probing.metrics import Bootstrap
from components.probing.sweep import Sweep
from components.registry.champions import predictions
from components.registry.gate import Champion, Evidence, decide
from components.reporting import gallery
from components.reporting.inputs import read_inputs
from data.format import open_dataset

pytestmark = pytest.mark.slow  # they share a training

COPIES = 3
DATA = DataSettings(canvas=16, copies=COPIES, limit=150)
MODEL = ModelSettings(width=32, heads=2, embed_dim=16, patch_size=4)
TRAIN = TrainSettings(steps=60, warmup_steps=5, batch_size=32, log_every=10, checkpoint_every=30, min_gap=0)
EMBED = EmbedSettings(timesteps=[0, 400, 999])
PROBE = ProbeSettings(c_grid=[0.1], baselines=["pixels"], baseline_timesteps=[100], bootstrap=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("scattered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        (folder / "mlflow.db").write_bytes(migrated_store.read_bytes())
        prepare.run(DATA, folder / "dataset")
        validate.run(ValidateSettings(), folder / "dataset", folder / "verdict")
        train.run(MODEL, TRAIN, folder / "dataset", folder / "verdict", folder / "work", folder / "model")
        embed.run(EMBED, folder / "dataset", folder / "model", folder / "embeddings")
        probe.run(PROBE, folder / "dataset", folder / "model", folder / "embeddings", folder / "probe")
    return folder


def paths_of(run: Path) -> dict[str, Path]:
    return {kind: run / kind for kind in ("dataset", "verdict", "model", "embeddings", "probe")}


def test_the_probe_resamples_originals(run: Path) -> None:
    metrics = artifact.read(run / "probe", "probe").json("metrics.json")
    assert metrics["copies"] == COPIES
    correct = pq.read_table(run / "probe" / "predictions.parquet")["correct"].to_numpy()
    found = metrics["test"]["accuracy"]
    expected = Bootstrap(len(correct), PROBE.bootstrap, PROBE.seed, COPIES).mean(correct)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-6)
    naive = Bootstrap(len(correct), PROBE.bootstrap, PROBE.seed).mean(correct)
    assert (found["low"], found["high"]) != pytest.approx((naive.low, naive.high), abs=1e-6)


def test_the_halves_that_choose_and_test_a_peak_share_no_original(run: Path) -> None:
    sweep = Sweep(PROBE, open_dataset(run / "dataset"))
    one, other = sweep.halves
    assert len(one) + len(other) == sweep.dataset.info.counts["val"]
    assert not set(one // COPIES) & set(other // COPIES)
    resampled = next(sweep.half_bootstrap.chunks()).reshape(-1, len(other) // COPIES, COPIES)
    assert (resampled == resampled[..., :1]).all()


def test_the_gate_reads_the_copies_from_the_probes_metrics(run: Path) -> None:
    made = artifact.read(run / "probe", "probe")
    known = predictions(made.path / "predictions.parquet")
    metrics, settings = made.json("metrics.json"), RegisterSettings(min_accuracy=0)
    gate = decide(Evidence(settings, {"passed": True}, {}, metrics, "same", known, [Champion(1, "same", known)]))
    originals = len(known.index) // COPIES
    assert f"{len(known.index)} test images, copies of {originals}, paired" in gate.reasons[-1]


def test_the_page_tells_of_copies_and_occupancy_and_shows_each_original_once(run: Path) -> None:
    report.run(DATA, ValidateSettings(), MODEL, TRAIN, EMBED, PROBE, **paths_of(run), out=run / "report")
    page = re.sub(r"\s+", " ", (run / "report" / "report.html").read_text("utf-8"))
    info = open_dataset(run / "dataset").info
    assert f"{COPIES} copies each of {info.counts['test'] // COPIES} originals, which were resampled whole" in page
    assert f"not blank: {100 * info.occupancy:.2f} % in train" in page
    assert "nearest training images, each of another original, carry" in page


def test_neighbours_and_samples_are_of_different_originals(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, shown = read_inputs(paths_of(run)), list[np.ndarray]()
    train_images = inputs.dataset.split("train").images
    rows = {image.tobytes(): row for row, image in enumerate(train_images)}
    monkeypatch.setattr(gallery, "tile", lambda image, alt="": shown.append(image) or None)
    found = gallery.neighbours(inputs)
    assert found is not None
    per_query = 1 + gallery.NEIGHBOURS
    assert len(shown) == len(found[0]) * per_query
    for query in range(len(found[0])):
        near = shown[query * per_query : (query + 1) * per_query]
        originals = {rows[image.tobytes()] // COPIES for image in near if image.tobytes() in rows}
        assert len(originals) == gallery.NEIGHBOURS
    shown.clear()
    gallery.classes(inputs)
    assert len({rows[image.tobytes()] // COPIES for image in shown}) == len(shown)


def test_of_an_originals_copies_the_nearest_stands_for_all() -> None:
    found = np.array([[4, 5, 3, 9, 10, 0], [0, 9, 1, 2, 3, 10]])
    np.testing.assert_array_equal(gallery._of_other_originals(found, 3, 2), [[4, 9], [0, 9]])
    assert gallery._of_other_originals(found, 1, 6) is found
