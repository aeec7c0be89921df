"""Which artifacts a local run stands on. Runs are folders of tiny real artifacts, as Kubeflow's runner would leave them."""

import shutil
from pathlib import Path

import pytest

from components.common import artifact
from pipeline.local.artifacts import MADE_BY, gather, link
from pipeline.steps import BY_NAME, STEPS

NEEDS = {step.output: tuple(name for name in step.inputs if name != "work") for step in STEPS}


def run_steps(run: Path, names: list[str], earlier: dict[str, Path], content: str) -> dict[str, Path]:
    """Let the steps behind `names` leave their artifacts in `run`; all others come from `earlier`."""
    places = dict(earlier)
    for name in names:
        made_from = {need: artifact.read(places[need], need).fingerprint for need in NEEDS[name]}
        places[name] = run / MADE_BY[name] / BY_NAME[MADE_BY[name]].kubeflow_output
        with artifact.create(places[name], name, made_from) as folder:
            (folder / "content").write_text(content)
    return places


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_whole_run_stands_on_its_own(runs: Path) -> None:
    made = run_steps(runs / "dier-1", list(NEEDS), {}, "one")
    assert gather(runs, runs / "dier-1") == made


def test_spared_steps_are_found_by_what_later_ones_were_made_from(runs: Path) -> None:
    """Three runs: the second retrained, the third went back to the first's model. By time, the second's would be the nearest."""
    first = run_steps(runs / "dier-1", list(NEEDS), {}, "one")
    run_steps(runs / "dier-2", ["model", "embeddings", "probe", "report", "registration"], first, "two")
    third = run_steps(runs / "dier-3", ["probe", "report", "registration"], first, "three")
    found = gather(runs, runs / "dier-3")
    assert found == third
    assert found["model"] == runs / "dier-1" / "train" / "model"


def test_a_step_that_ran_and_left_nothing_whole_is_missing(runs: Path) -> None:
    made = run_steps(runs / "dier-1", list(NEEDS), {}, "one")
    (made["probe"] / artifact.MANIFEST).unlink()
    (made["report"] / "content").write_text("changed")
    assert set(gather(runs, runs / "dier-1")) == set(NEEDS) - {"probe", "report"}


def test_another_artifact_of_that_name_does_not_stand_in_for_a_lost_one(runs: Path) -> None:
    first = run_steps(runs / "dier-1", list(NEEDS), {}, "one")
    run_steps(runs / "dier-2", ["registration"], first, "two")
    shutil.rmtree(first["model"])
    run_steps(runs / "dier-0", ["dataset", "verdict", "model"], {}, "other")
    assert "model" not in gather(runs, runs / "dier-2")


def test_links_point_at_the_latest_run_alone(runs: Path, tmp_path: Path) -> None:
    made = run_steps(runs / "dier-1", list(NEEDS), {}, "one")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    link(made, folder)
    assert (folder / "model").resolve() == made["model"].resolve()
    link({"dataset": made["dataset"]}, folder)
    assert [place.name for place in folder.iterdir()] == ["dataset"]
