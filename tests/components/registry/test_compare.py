"""`dier compare`: paired differences overall and by class, from what is kept with registered versions."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import register
from components.common.errors import ArtifactError, SettingsError
from components.registry.compare import _by_class, _row, compare
from components.registry.promote import promote
from components.tracking.client import connect
from pipeline.cli import main
from tests.components.registry_artifacts import TESTED, correct, make, settings

pytestmark = pytest.mark.slow
CHAMPION, CANDIDATE = "glyphs@champion", "glyphs@candidate"


def registered(folder: Path, right: np.ndarray, **made: object) -> None:
    register.run(settings(min_accuracy=0, margin=1), **make(folder, right=right, **made).paths(), out=folder / "out")  # type: ignore[arg-type]


def two(tmp_path: Path, old: np.ndarray, new: np.ndarray, **made: object) -> None:
    """A champion and a candidate."""
    registered(tmp_path / "1", old)
    promote("glyphs", version=None, alias="champion", force=False, reason="first")
    registered(tmp_path / "2", new, **{"training": "t2", **made})


def test_the_differences_are_those_of_the_pairs(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = np.arange(TESTED) % 3
    old = correct(0.8)
    new = old.copy()
    new[np.flatnonzero((label == 1) & ~old)] = True  # better at class b, and at nothing else
    new[np.flatnonzero((label == 2) & old)[:4]] = False
    two(tmp_path, old, new)
    found = json.loads(compare(CHAMPION, CANDIDATE, as_json=True))
    assert (found["first"]["version"], found["second"]["version"]) == (1, 2)
    rows = {row["class"]: row for row in found["differences"]}
    assert list(rows) == ["all", "a", "b", "c"]
    for name, of in {"all": label >= 0, "a": label == 0, "b": label == 1, "c": label == 2}.items():
        row, pairs = rows[name], new[of].astype(float) - old[of]
        assert row["images"] == of.sum()
        assert (row["first"], row["second"]) == pytest.approx((old[of].mean(), new[of].mean()), abs=1e-6)
        assert row["difference"]["value"] == pytest.approx(pairs.mean(), abs=1e-6)
        half = 1.96 * pairs.std() / np.sqrt(of.sum())
        assert row["difference"]["low"] == pytest.approx(pairs.mean() - half, abs=0.015)
        assert row["difference"]["high"] == pytest.approx(pairs.mean() + half, abs=0.015)
    assert (rows["a"]["difference"]["low"], rows["a"]["difference"]["high"]) == (0, 0)  # not one pair differs
    assert rows["b"]["difference"]["low"] > 0 > rows["c"]["difference"]["high"]

    assert main(["compare", "glyphs/1", CANDIDATE]) == 0
    shown = capsys.readouterr().out
    assert "glyphs@candidate (version 2) minus glyphs/1: test accuracy in points" in shown
    (line,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["b"]]
    assert line[1] == str((label == 1).sum())
    assert main(["compare", CHAMPION, CHAMPION]) == 0


def test_other_test_data_is_refused_in_one_line(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two(tmp_path, correct(0.9), correct(0.95), dataset="d2")
    with pytest.raises(
        SettingsError, match=r"cannot be compared: they were tested on different data \(\w{12} and \w{12}\); train, pro"
    ):
        compare(CHAMPION, CANDIDATE, as_json=False)
    capsys.readouterr()
    assert main(["compare", CHAMPION, CANDIDATE]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_what_is_not_there_or_damaged_is_said(store: str, tmp_path: Path) -> None:
    two(tmp_path, correct(0.9), correct(0.95))
    for asked, says in {
        "glyphs/best": "names no version: give NAME",
        "glyphs@best": r"no alias best \(there are: candidate .*, champion ",
        "glyphs/9": r"no version 9 \(there are: 1, 2\)",
        "nobody@champion": "no registered model 'nobody'",
    }.items():
        with pytest.raises(SettingsError, match=says):
            compare(CHAMPION, asked, as_json=False)
    connect().create_model_version("glyphs", str(tmp_path))
    with pytest.raises(SettingsError, match="glyphs/3 does not say what it was tested on"):
        compare(CHAMPION, "glyphs/3", as_json=False)
    for spoil in (lambda file: file.write_bytes(b"half a fi"), Path.unlink):
        for file in Path("mlruns").rglob("predictions.parquet"):
            spoil(file)
        with pytest.raises(ArtifactError, match=r"glyphs@champion: its predictions\.parquet is missing or damaged"):
            compare(CHAMPION, CANDIDATE, as_json=False)


def test_without_labels_the_neighbours_kept_are_compared(store: str, tmp_path: Path) -> None:
    shares = np.tile([0.3, 0.5], TESTED // 2)
    registered(tmp_path / "1", shares, labelled=False)
    registered(tmp_path / "2", shares + 0.02, labelled=False, training="t2")
    registered(tmp_path / "3", correct(0.9), training="t3")
    (row,) = json.loads(compare("glyphs/1", "glyphs/2", as_json=True))["differences"]
    assert (row["first"], row["second"]) == (0.4, 0.42)
    assert tuple(row["difference"].values()) == pytest.approx((0.02, 0.02, 0.02))
    assert "test neighbours kept in points" in compare("glyphs/1", "glyphs/2", as_json=False)
    with pytest.raises(SettingsError, match=r"measured in different ways \(neighbours kept, 10 of 600 and accuracy\)"):
        compare("glyphs/1", "glyphs/3", as_json=False)


def test_of_several_labels_each_is_compared_over_all_images(tmp_path: Path) -> None:
    label, guess = np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 1], [0, 1], [0, 0]])
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(v.reshape(-1)), 2) for name, v in (("label", label), ("dier", guess))
    }
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    found = _by_class(tmp_path / "predictions.parquet", ["mass", "fracture"])
    assert {name: (of.sum(), right.tolist()) for name, (of, right) in found.items()} == {
        "mass": (3, [1, 0, 1]),
        "fracture": (3, [0, 1, 1]),
    }


def test_copies_of_an_original_make_no_interval_narrower() -> None:
    new, old = np.repeat(correct(0.8, seed=1), 10).astype(float), np.repeat(correct(0.8, seed=2), 10).astype(float)
    widths = [row["high"] - row["low"] for row in (_row("a", new >= 0, old, new, copies)["difference"] for copies in (1, 10))]
    assert widths[1] == pytest.approx(np.sqrt(10) * widths[0], rel=0.1)
