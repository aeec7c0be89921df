"""A contest of small trainings on a small set: tuning, results, going on, and who may read test."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import contest
from experiments.contest import main, uncommitted
from experiments.plan import read_plan
from experiments.results import outcomes, results_of
from tests.experiments.test_plan import raw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of 8 x 8, whose class is where it is bright, and a plan."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, number in {"train": 80, "val": 40, "test": 30}.items():
        y = rng.integers(2, size=number)
        x = rng.integers(0, 100, size=(number, 8, 8))
        x[:, :4] += 80 * (1 - y[:, None, None])
        x[:, 4:] += 80 * y[:, None, None]
        arrays |= {f"{split}_images": x.astype(np.uint8), f"{split}_labels": y[:, None]}
    np.savez(tmp_path / "tiny.npz", **arrays)
    small = {"depth": 1, "dim": 16, "heads": 2, "patch_size": 4, "embed_dim": 8, "read_at": [0, 500], "joint": [0, 500]}
    plan = raw(seeds=[0, 1], steps={"tiny": {"DiER": 4}})
    plan["rows"]["DiER"] |= {"setting": small, "on": {}, "curve": True}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    return tmp_path


def run(folder: Path, *more: str) -> int:
    return main(["--data", str(folder), "--plan", str(folder / "plan.json"), "--out", str(folder / "out"), *more])


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / name).read_text().splitlines()]


def commit(folder: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "plan.json"], ["commit", "-qm", "the plan"]):
        subprocess.run([*git, *command], cwd=folder, check=True)


@pytest.mark.slow
def test_a_contest_from_tuning_to_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--seeds", "0") == 0
    trials, runs = lines(folder, "trials.jsonl"), lines(folder, "runs.jsonl")
    assert [line["trial"] for line in trials] == [0, 1]
    assert all("knn" not in line for line in trials)
    assert [(line["reading"], line["seed"]) for line in runs] == [("DiER", 0), ("three t", 0), ("pixels", 0)]
    assert all("right" not in line["probes"]["all"] for line in runs)
    best = max(trials, key=lambda line: line["val"])
    assert runs[0]["setting"]["lr"] == best["setting"]["lr"]
    assert [look["step"] for look in runs[0]["looks"]] == [1, 4]
    assert [point["variant"] for point in runs[0]["curve"]] == ["t=0", "t=500"]
    assert runs[1]["dimension"] == 2 * runs[0]["dimension"]

    assert run(folder, "--test") == 2  # nothing of the plan is in git
    assert "not in git" in capsys.readouterr().err
    commit(folder)
    assert run(folder, "--test", "--jobs", "2") == 0
    plan = read_plan(folder / "plan.json")
    found = results_of(plan, folder / "out")
    assert {key: sorted(seeds) for key, seeds in found.items()} == {
        ("DiER", "tiny"): [0, 1],
        ("three t", "tiny"): [0, 1],
        ("pixels", "tiny"): [0],
    }
    right = outcomes(found["pixels", "tiny"], "all")[0]
    assert right.mean() == found["pixels", "tiny"][0]["probes"]["all"]["test"] > 0.8
    assert len(lines(folder, "trials.jsonl")) == 2  # tuned once

    before = (folder / "out" / "runs.jsonl").read_bytes()
    assert run(folder, "--test") == 0
    assert (folder / "out" / "runs.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_training_that_fails_stops_no_other_and_is_tried_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["rows"] = {"pixels": plan["rows"]["pixels"], "broken": {"method": "mae", "setting": {"no such": 1}}}
    plan |= {"comparisons": [], "steps": {"tiny": {"broken": 1}}, "seeds": [0]}
    (folder / "plan.json").write_text(json.dumps(plan))
    assert run(folder) == 1
    assert "mae knows no setting 'no such'" in capsys.readouterr().out
    assert [line.get("reading") for line in lines(folder, "runs.jsonl")].count("pixels") == 1
    assert list(results_of(read_plan(folder / "plan.json"), folder / "out")) == [("pixels", "tiny")]
    assert run(folder) == 1
    assert [("failed" in line) for line in lines(folder, "runs.jsonl")].count(True) == 2


def test_what_is_left_is_told_without_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith("2 trials and 3 of 3 trainings are left: about 0.2 hours")
    assert "DiER on tiny, seed 1: 4 steps" in said
    assert not (folder / "out").exists()


def test_trainings_go_seed_by_seed(folder: Path) -> None:
    plan = read_plan(folder / "plan.json")
    plan = plan.model_copy(update={"rows": {name: row.model_copy(update={"trials": []}) for name, row in plan.rows.items()}})
    jobs = contest.trainings(plan, contest.Lines(folder / "none.jsonl"))
    assert [str(job) for job in jobs] == ["DiER on tiny, seed 0", "pixels on tiny, seed 0", "DiER on tiny, seed 1"]


@pytest.mark.parametrize("more", [["--rows", "nobody"], ["--sets", "huge"], ["--seeds", "7"]])
def test_names_that_are_not_in_the_plan(folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, *more) == 2
    assert "not in the plan" in capsys.readouterr().err


def test_a_plan_is_committed_when_git_says_so(folder: Path) -> None:
    assert "not in git" in uncommitted(folder / "plan.json")
    commit(folder)
    assert uncommitted(folder / "plan.json") == ""
    (folder / "plan.json").write_text((folder / "plan.json").read_text() + "\n")
    assert "differs from the last commit" in uncommitted(folder / "plan.json")
