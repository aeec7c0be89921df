"""What is measured without labels: neighbours that are kept, and t by label-free scores, on real digits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components import probe
from components.common import artifact
from components.probing import unlabelled
from components.probing.unlabelled import NEIGHBOURS, neighbours_kept
from components.reporting.unlabelled import over_t, score_rows
from tests.components.report_inputs import PROBE, Paths, make


def circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


GALLERY = circle(np.linspace(0, 2 * np.pi, 200, endpoint=False))
"""200 directions, 1.8 degrees apart."""
STEP = 2 * np.pi / 200


def test_a_view_of_the_same_direction_keeps_every_neighbour_whatever_its_length() -> None:
    v = circle(np.random.default_rng(0).uniform(0, 2 * np.pi, 50))
    assert neighbours_kept(v, [v, 3 * v], GALLERY).tolist() == [1.0] * 50


def test_the_share_is_that_of_the_nearest_ten_that_stay() -> None:
    """A turn by so many steps brings in as many new neighbours of ten."""
    v = circle(STEP * (np.arange(20) + 0.5))  # between two directions, so that none is on the edge
    for steps, share in ((1, 0.9), (4, 0.6), (10, 0.0), (100, 0.0)):
        assert neighbours_kept(v, [circle(STEP * (np.arange(20) + 0.5 + steps))], GALLERY) == pytest.approx(share)
    both = [v, circle(STEP * (np.arange(20) + 0.5 + 4))]
    assert neighbours_kept(v, both, GALLERY) == pytest.approx(0.8)  # the mean over views


def test_by_chance_so_many_are_kept() -> None:
    random = np.random.default_rng(0)
    v, view, gallery = (random.normal(size=(n, 30)).astype(np.float32) for n in (400, 400, 100))
    assert neighbours_kept(v, [view], gallery).mean() == pytest.approx(NEIGHBOURS / 100, abs=0.01)


def test_fewer_training_images_than_neighbours_are_all_kept() -> None:
    v = circle(np.arange(3.0))
    assert neighbours_kept(v, [-v], GALLERY[:4]).tolist() == [1.0] * 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return make(tmp_path_factory.mktemp("unlabelled"), labelled=False)


def again(inputs: Paths, out: Path, **changes: Any) -> artifact.Artifact:
    given = PROBE.model_copy(update=changes)
    probe.run(given, inputs["dataset"], inputs["model"], inputs["embeddings"], out)
    return artifact.read(out, "probe")


@pytest.mark.slow
@pytest.mark.parametrize("best", [0, 300, 999])
def test_t_is_where_the_label_free_score_is_highest(
    inputs: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    seen: list[Any] = []

    def scored(model: Any, images: Any, timesteps: Any, seed: int, **more: Any) -> list[dict[str, float]]:
        seen.append((images.shape, more))
        return [{"t": t, "score": float(t == best), "gap_nats": 1.0} for t in timesteps]

    monkeypatch.setattr(unlabelled, "label_free", scored)
    found = again(inputs, tmp_path / "probe").json("metrics.json")
    assert found["t"] == best
    assert seen == [((60, 8, 8, 1), {"condition_dropout": False})]  # val, and not test


@pytest.mark.slow
def test_test_images_do_not_choose(inputs: Paths, tmp_path: Path) -> None:
    """The scores of curve.csv are of val; of test there is the chosen t alone."""
    found = again(inputs, tmp_path / "probe")
    curve, metrics = pd.read_csv(found.path / "curve.csv"), found.json("metrics.json")
    tested = curve[(curve["split"] == "test") & (curve["representation"] == "dier")]
    assert set(tested["t"]) == {metrics["t"]}
    assert set(curve[curve["split"] == "val"]["t"]) == {0, 300, 999}
    scores = curve[curve["metric"] == "score"]
    assert scores.loc[scores["value"].idxmax(), "t"] == metrics["t"]


@pytest.mark.slow
def test_what_embed_chose_is_taken_with_its_neighbours_side_by_side(inputs: Paths, tmp_path: Path) -> None:
    """embed.timesteps auto, embed.k 2: no score is computed again, and t that were tried but not embedded have scores alone."""
    embedded = artifact.read(inputs["embeddings"], "embeddings")
    scores = [{"t": t, "score": t / 500, "gap_nats": 1.0} for t in (0, 300, 500, 999)]
    with artifact.create(tmp_path / "embeddings", "embeddings", embedded.made_from) as folder:
        shutil.copytree(embedded.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifact.MANIFEST))
        artifact.write_json(folder / "embeddings.json", embedded.json("embeddings.json") | {"k": 2})
        artifact.write_json(folder / "selection.json", {"t": 300, "scores": scores})
    found = again(inputs | {"embeddings": tmp_path / "embeddings"}, tmp_path / "probe")
    metrics, curve = found.json("metrics.json"), pd.read_csv(found.path / "curve.csv")
    assert (metrics["t"], metrics["timesteps"], metrics["embed_dim"]) == (300, [300, 999], 64)
    assert "t = 300 is the best of 4 on train" in metrics["peak"]["sentence"]
    assert curve[curve["metric"] == "score"]["t"].tolist() == [0, 300, 500, 999]
    assert curve[(curve["metric"] == "kept") & (curve["split"] == "val")]["t"].tolist() == [0, 300, 999]
    assert "\u2013" in [row["kept"] for row in score_rows(curve)]
    assert over_t(curve, metrics).src


@pytest.mark.slow
def test_baselines_stand_beside_and_may_be_left_out(inputs: Paths, tmp_path: Path) -> None:
    assert set(artifact.read(inputs["probe"], "probe").json("metrics.json")["baselines"]) == {"pixels", "untrained"}
    assert again(inputs, tmp_path / "probe", baselines=["pca"]).json("metrics.json")["baselines"] == {}


@pytest.mark.slow
def test_a_collapsed_encoder_is_seen(tmp_path: Path) -> None:
    """All embeddings at one place: rank 1, no spread, which the gate refuses, though every neighbour may be kept."""
    paths = make(tmp_path, labelled=False, collapsed=True, train_steps=1)
    tested = artifact.read(paths["probe"], "probe").json("metrics.json")["test"]
    assert tested["effective_rank"]["value"] == pytest.approx(1, abs=0.01)
    assert tested["spread"]["value"] == 0
