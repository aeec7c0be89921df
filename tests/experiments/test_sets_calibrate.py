"""The contest's sets, and how many steps fit into equal processor seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.format import SPLITS
from experiments import calibrate
from experiments.contestant import Budget, Trained
from experiments.sets import ImageSet, digits_settings, family_of, load
from experiments.views import FAMILIES


def npz(folder: Path, name: str = "some", labels: int = 1, **changed: Any) -> Path:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in zip(SPLITS, (20, 5, 5), strict=True):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 8, 8), np.uint8)
        arrays[f"{split}_labels"] = random.integers(0, 2, (count, labels)).astype(np.uint8)
    np.savez(folder / f"{name}.npz", **{key: value for key, value in (arrays | changed).items() if value is not None})
    return folder


def test_an_npz_in_medmnists_layout_is_a_set(tmp_path: Path) -> None:
    found = load("some", npz(tmp_path))
    assert found.images["train"].shape == (20, 8, 8, 1)
    assert found.labels["val"].shape == (5,)
    assert found.labels["val"].dtype == np.int64
    assert (found.classes, found.copies, found.family) == (2, 1, "natural")


def test_what_is_no_set_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no set 'other': .*other.npz is missing; put it there"):
        load("other", npz(tmp_path))
    with pytest.raises(ValueError, match="has no val_labels"):
        load("some", npz(tmp_path, val_labels=None))
    with pytest.raises(ValueError, match="has 3 labels an image"):
        load("some", npz(tmp_path, labels=3))


def test_a_sets_name_says_which_views_it_bears() -> None:
    names = {"cifar10": "natural", "fashionmnist": "garments", "mnist": "digits", "digits16": "digits", "pathmnist": "natural"}
    assert {name: family_of(name) for name in names} == names
    assert set(names.values()) == set(FAMILIES)


@pytest.mark.slow
def test_scattered_digits_come_through_prepare(tmp_path: Path) -> None:
    found = load("digits16", tmp_path)
    assert found.images["train"].shape[1:] == (16, 16, 1)
    assert found.copies == digits_settings("digits16").copies > 1
    for split in SPLITS:
        labels = found.labels[split].reshape(-1, found.copies)
        assert (labels == labels[:, :1]).all(), "copies of one digit stand together"
    before = (tmp_path / "digits16-prepared" / "manifest.json").stat().st_mtime_ns
    again = load("digits16", tmp_path)
    assert np.array_equal(again.images["test"], found.images["test"])
    assert (tmp_path / "digits16-prepared" / "manifest.json").stat().st_mtime_ns == before


def timed(seconds: float, once: float) -> Any:
    """A method that takes so many seconds a step, and some once."""

    def method(images: Any, labels: Any, *, budget: Budget, **_: Any) -> Trained:
        return Trained({}, budget.steps, 0.0, once + seconds * budget.steps, 0)

    return method


def test_steps_are_as_many_as_fit_and_what_happens_once_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calibrate.METHODS, "dier", timed(0.25, once=100.0))
    step = calibrate.seconds_per_step("dier", np.empty(0), np.empty(0), {}, 128)  # type: ignore[arg-type]
    assert step == pytest.approx(0.25)
    assert calibrate.steps_within(200, step) == 800
    assert calibrate.steps_within(199, step) == 750
    assert calibrate.steps_within(1, step) == calibrate.ROUND


def test_the_plans_rows_are_calibrated_where_they_train_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calibrate.METHODS, "dier", timed(0.5, once=0.0))
    plan = {
        "sets": ["a", "b"],
        "batch_size": 64,
        "rows": {
            "plain": {"method": "dier"},
            "elsewhere": {"method": "dier", "sets": ["b"]},
            "pixels": {"method": "pixels"},
        },
    }
    empty = {split: np.empty((0, 8, 8, 1), np.uint8) for split in SPLITS}
    where = ImageSet("a", "digits", empty, {split: np.empty(0, np.int64) for split in SPLITS})
    assert calibrate.calibrate(json.loads(json.dumps(plan)), where, 100, []) == {"plain": 200}
    assert calibrate.calibrate(plan, where, 100, ["elsewhere"]) == {}
