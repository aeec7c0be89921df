"""`dier clean`: what may go is named, goes when asked, and nothing else does."""

import os
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from model.training.checkpoint import hold
from pipeline import cli
from tests.model.conftest import Hooks, images, make_trainer  # noqa: F401


@pytest.fixture
def work(images: np.ndarray, tmp_path: Path) -> Path:  # noqa: F811
    """Three trainings that ended, the oldest first, and one that was stopped."""
    folder = tmp_path / "work"
    for age, name in enumerate(("new", "middle", "old")):
        make_trainer(images, folder / name, steps=4).run()
        os.utime(folder / name, (time.time() - 100 * age,) * 2)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(images, folder / "stopped", Hooks(stop=lambda: 15), steps=8).run()
    return folder


def clean(work: Path, *more: str) -> None:
    beside = ["--artifacts", str(work.parent / "artifacts"), "--maps", str(work.parent / "explore")]
    assert cli.main(["clean", "--work", str(work), *beside, *more]) == 0


def steps(work: Path) -> dict[str, int]:
    return {folder.name: len(list(folder.glob("step-*"))) for folder in work.iterdir()}


def test_checkpoints_of_trainings_that_ended_go_and_those_of_stopped_ones_stay(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = steps(work)
    clean(work, "--keep", "1")
    said = capsys.readouterr().err
    assert steps(work) == before
    assert said.count("checkpoint of a training that has ended") == before["middle"] + before["old"]
    assert "dier clean --yes removes them" in said
    clean(work, "--keep", "1", "--yes")
    assert steps(work) == before | {"middle": 0, "old": 0}
    assert (work / "old" / "rates.csv").is_file()
    capsys.readouterr()
    clean(work, "--keep", "1")
    assert "nothing to clean" in capsys.readouterr().err


def test_what_a_training_holds_stays(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = steps(work)
    with hold(work / "old"):
        clean(work, "--keep", "0", "--yes")
    assert steps(work) == before | {"new": 0, "middle": 0}
    assert "another training is using" in capsys.readouterr().err


def test_links_lead_nowhere(work: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (work / "old").rename(tmp_path / "elsewhere" / "old")
    (work / "link").symlink_to(tmp_path / "elsewhere" / "old")
    clean(work, "--keep", "0", "--yes")
    assert list((tmp_path / "elsewhere" / "old").glob("step-*"))


def aged(path: Path, days: float) -> Path:
    then = time.time() - 86400 * days
    for part in (*path.rglob("*"), path):
        os.utime(part, (then, then))
    return path


def test_half_written_artifacts_and_what_tasks_left_go_by_age(tmp_path: Path) -> None:
    def folder(*names: str, days: float) -> Path:
        place = tmp_path.joinpath(*names)
        place.mkdir(parents=True)
        (place / "file").write_text("x")
        return aged(place, days)

    old = folder("artifacts", f".model.partial-{uuid.uuid4().hex}", days=2)
    new = folder("artifacts", f".model.partial-{uuid.uuid4().hex}", days=0)
    whole = folder("artifacts", "model", days=99)
    inputs = folder("state", "trainjob", "dier-1", days=8)
    living = folder("state", "trainjob", "dier-2", days=1)
    failure = tmp_path / "state" / "permanent-failure" / "run-1"
    failure.parent.mkdir()
    failure.write_text('{"code": 3}')
    aged(failure, 8)
    (tmp_path / "work").mkdir()
    clean(tmp_path / "work", "--state", str(tmp_path / "state"), "--yes")
    assert [path.exists() for path in (old, new, whole, inputs, living, failure)] == [False, True, True, False, True, False]


def test_maps_of_the_explore_page_go_when_they_were_not_used_for_days(tmp_path: Path) -> None:
    (tmp_path / "explore").mkdir()
    old, used = (tmp_path / "explore" / f"{name}.safetensors" for name in ("old", "used"))
    for file, days in ((old, 8), (used, 1)):
        file.write_bytes(b"x")
        aged(file, days)
    (tmp_path / "work").mkdir()
    clean(tmp_path / "work", "--yes")
    assert [old.exists(), used.exists()] == [False, True]
