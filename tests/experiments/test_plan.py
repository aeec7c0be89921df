"""The plan: what it refuses, and which trainings it asks for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.contestant import Budget
from experiments.methods import METHODS, TRAINED
from experiments.plan import Plan, matching, read_plan, run_jobs, steps_of, trial_jobs
from experiments.results import Lines, chosen_setting


def raw(**changed: Any) -> dict[str, Any]:
    return {
        "sets": ["tiny"],
        "seeds": [0, 1, 2],
        "batch_size": 8,
        "steps": {"tiny": {"DiER": 40, "pixels": 0}},
        "cpu_seconds": 10,
        "trial_seed": 9,
        "trial_share": 0.25,
        "looks": [0.1, 1.0],
        "rows": {
            "DiER": {
                "method": "dier",
                "setting": {"lr": 1e-3},
                "on": {"tiny": {"patch_size": 2}},
                "trials": [{"lr": 1e-3}, {"lr": 2e-3}],
                "readings": {"DiER": r"t=\d+", "three t": r"t=\d+\+.*"},
                "looks": True,
            },
            "pixels": {"method": "pixels", "seedless": True},
        },
        "comparisons": [{"ours": "DiER", "theirs": ["pixels", "three t"], "sets": ["tiny"]}],
        **changed,
    }


def test_jobs_of_a_row() -> None:
    plan = Plan.model_validate(raw())
    trials = trial_jobs(plan, "DiER", "tiny")
    assert [(job.seed, job.steps, job.setting["lr"], job.setting["patch_size"]) for job in trials] == [
        (9, 10, 1e-3, 2),
        (9, 10, 2e-3, 2),
    ]
    runs = run_jobs(plan, "DiER", "tiny", {"lr": 2e-3})
    assert [(job.seed, job.steps, job.looks, job.setting["lr"]) for job in runs] == [
        (seed, 40, (4, 40), 2e-3) for seed in (0, 1, 2)
    ]
    assert [(job.seed, job.steps) for job in run_jobs(plan, "pixels", "tiny", {})] == [(0, 0)]
    assert len({job.fingerprint for job in trials + runs}) == 5


def test_a_fingerprint_changes_with_what_decides_the_result_alone() -> None:
    before = run_jobs(Plan.model_validate(raw()), "DiER", "tiny", {})[0].fingerprint
    assert run_jobs(Plan.model_validate(raw(seeds=[0], margin=0.01)), "DiER", "tiny", {})[0].fingerprint == before
    assert run_jobs(Plan.model_validate(raw(steps={"tiny": {"DiER": 41}})), "DiER", "tiny", {})[0].fingerprint != before


def test_declared_comparisons_are_pairs_a_set() -> None:
    assert Plan.model_validate(raw()).pairs() == [("DiER", "pixels", "tiny"), ("DiER", "three t", "tiny")]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"trial_seed": 1}, "trial_seed 1 is one of seeds"),
        ({"comparisons": [{"ours": "DiER", "theirs": ["nobody"], "sets": ["tiny"]}]}, "there is no reading 'nobody'"),
        (
            {"rows": {"a": {"method": "pixels", "trials": [{}]}, "b": {"method": "pca", "trials": [{}, {}]}}, "comparisons": []},
            "same number",
        ),
        ({"rows": {"a": {"method": "pixels", "readings": {"b": ""}}, "b": {"method": "pca"}}, "comparisons": []}, "a reading 'b'"),
        ({"rows": {"a": {"method": "magic"}}, "comparisons": []}, "no method 'magic'"),
        ({"budget": 3}, "budget: Extra inputs"),
        ({"rows": {"a": {"method": "pixels", "seeds": 2}}, "comparisons": []}, "rows.a.seeds"),
    ],
)
def test_what_it_refuses(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(raw(**changed)))
    with pytest.raises(ValueError, match=r"plan\.json: ") as caught:
        read_plan(tmp_path / "plan.json")
    assert says in str(caught.value)


def test_steps_that_nobody_calibrated() -> None:
    plan = Plan.model_validate(raw(steps={}))
    assert steps_of(plan, "pixels", "tiny") == 0
    with pytest.raises(ValueError, match="no number for 'DiER' on 'tiny'"):
        steps_of(plan, "DiER", "tiny")


def test_a_reading_takes_whole_names() -> None:
    names = ["t=0", "t=100", "t=100+300", "t=100+300, PCA"]
    assert matching(r"t=\d+", names) == ["t=0", "t=100"]
    assert matching(r"t=\d+\+[\d+]*", names) == ["t=100+300"]
    with pytest.raises(ValueError, match="no variant matches"):
        matching("block.*", names)


def test_val_chooses_among_trials_when_all_have_run(tmp_path: Path) -> None:
    plan, lines = Plan.model_validate(raw()), Lines(tmp_path / "trials.jsonl")
    first, second = trial_jobs(plan, "DiER", "tiny")
    assert chosen_setting(plan, lines, "pixels", "tiny") == {}
    lines.add([{"job": first.fingerprint, "val": 0.5}])
    assert chosen_setting(plan, lines, "DiER", "tiny") is None
    lines.add([{"job": second.fingerprint, "failed": "the loss is not finite"}])
    assert chosen_setting(plan, lines, "DiER", "tiny") is None
    lines.add([{"job": second.fingerprint, "val": 0.6}])
    assert chosen_setting(plan, lines, "DiER", "tiny") == {"lr": 2e-3}
    assert chosen_setting(plan, Lines(tmp_path / "trials.jsonl"), "DiER", "tiny") == {"lr": 2e-3}


def test_a_line_that_was_cut_off_is_dropped_and_another_told(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    job = run_jobs(Plan.model_validate(raw()), "pixels", "tiny", {})[0]
    file.write_text('{"job": "a", "reading": "r"}\n{"job": "b", "rea')
    lines = Lines(file)
    lines.add([{"job": job.fingerprint, "reading": "pixels"}])
    assert len(file.read_text().splitlines()) == 2
    assert Lines(file).of(job) == [{"job": job.fingerprint, "reading": "pixels"}]
    file.write_text('{"job": "a\n{"job": "b"}\n')
    with pytest.raises(ValueError, match=r"runs\.jsonl:1 is no JSON"):
        Lines(file)


def test_of_several_lines_of_a_reading_the_last_counts(tmp_path: Path) -> None:
    job = run_jobs(Plan.model_validate(raw()), "DiER", "tiny", {})[0]
    lines = Lines(tmp_path / "runs.jsonl")
    both = [{"job": job.fingerprint, "reading": reading, "test": None} for reading in ("DiER", "three t")]
    lines.add(both)
    lines.add([line | {"test": 0.5} for line in both])
    assert lines.of(job) == Lines(lines.file).of(job) == [line | {"test": 0.5} for line in both]


def shipped() -> Plan:
    plan = read_plan()
    return plan.model_copy(update={"steps": {where: dict.fromkeys(plan.rows, 2) for where in plan.all_sets()}})


def test_the_plan_that_is_shipped_declares_what_it_trains() -> None:
    plan = shipped()
    trained = {(reading, where) for row in plan.rows for where in plan.sets_of(row) for reading in plan.readings(row)}
    for ours, theirs, where in plan.pairs():
        assert {(ours, where), (theirs, where)} <= trained


@pytest.mark.slow
@pytest.mark.parametrize("row", [name for name, row in read_plan().rows.items() if row.method in TRAINED])
def test_every_row_that_is_shipped_trains_and_has_its_readings(row: str) -> None:
    plan, rng = shipped(), np.random.default_rng(0)
    images, labels = rng.integers(256, size=(40, 16, 16, 1)).astype(np.uint8), np.arange(40) % 2
    spec = plan.rows[row]
    for where in plan.sets_of(row)[-1:]:
        for chosen in spec.trials[:1] or [{}]:
            job = run_jobs(plan, row, where, chosen)[0]
            given = {"family": "digits", **job.setting}
            budget = Budget(2, 8)
            trained = METHODS[job.method](images, labels if job.labels else None, budget=budget, seed=0, setting=given)
            for _, pattern in job.patterns:
                assert matching(pattern, trained.features)
