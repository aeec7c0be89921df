"""Tables and figures of a contest that is not done: what has run, what has not, and what may be claimed."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import page, plots, tables
from experiments.evaluate import pack, unpack
from experiments.plan import Plan, run_jobs, trial_jobs
from experiments.results import Lines
from experiments.statistics import two_level
from model.schedule import log_snr
from tests.experiments.test_plan import raw

IMAGES = 300


def plan_of(**changed: Any) -> Plan:
    made = raw(**changed)
    made["rows"]["DiER"]["trials"] = []
    made["comparisons"] = [{"ours": "DiER", "theirs": ["pixels", "three t"], "sets": ["tiny"]}]
    return Plan.model_validate(made)


def probed(right: np.ndarray) -> dict[str, Any]:
    return {"val": 0.7, "test": float(right.mean()), "right": pack(right), "images": 80, "c": 0.1}


def line(job: Any, reading: str, rng: np.random.Generator, share: float, copies: int = 1) -> dict[str, Any]:
    right = rng.random(IMAGES) < share
    probes = {name: probed(right) for name in ("1k", "10k", "all")}
    cost = {"steps": max(job.steps, 1), "flops": 2e12, "cpu_seconds": 60.0, "parameters": 9}
    return {
        **{"job": job.fingerprint, "row": job.row, "set": job.where, "seed": job.seed, "setting": job.setting, "reading": reading},
        **{"variant": "t=100", "dimension": 8, "r2": 0.4, "occupancy": 0.2, "copies": copies, "test_images": IMAGES, **cost},
        "looks": [{"step": 4, "val": 0.5, "variant": "t=0"}, {"step": 20, "val": 0.6, "variant": "t=100"}] if job.looks else [],
        "variants": {"t=0": 0.5, "t=100": 0.65},
        "curve": [{"variant": f"t={t}", "val": 0.6 - abs(t - 100) / 1e4, "test": 0.6, "r2": 0.3} for t in (0, 100, 999)],
        "probes": probes,
        "knn": probed(right),
        "few": {n: {"val": 0.3, "test": 0.3 + job.seed / 100} for n in ("1", "5", "10", "50")},
    }


def contest(
    plan: Plan, folder: Path, seeds: int = 3, shares: tuple[float, float, float] = (0.9, 0.9, 0.6), copies: int = 1
) -> None:
    rng = np.random.default_rng(0)
    lines = Lines(folder / "runs.jsonl")
    for job in run_jobs(plan, "DiER", "tiny", {})[:seeds]:
        lines.add([line(job, name, rng, share, copies) for name, share in zip(("DiER", "three t"), shares, strict=False)])
    lines.add([line(run_jobs(plan, "pixels", "tiny", {})[0], "pixels", rng, shares[2], copies)])


def test_the_main_table_has_each_readings_mean_and_interval(tmp_path: Path) -> None:
    plan = plan_of()
    contest(plan, tmp_path)
    made = tables.tables(plan, tmp_path)["main"].set_index("reading")
    stored = [json.loads(text) for text in (tmp_path / "runs.jsonl").read_text().splitlines()]
    ours = [record["probes"]["all"]["test"] for record in stored if record["reading"] == "DiER"]
    assert made.loc["DiER", "all"] == pytest.approx(np.mean(ours))
    assert made.loc["DiER", "all_low"] < np.mean(ours) < made.loc["DiER", "all_high"]
    assert made.loc["DiER", "few_5"] == pytest.approx(0.31)
    assert made.loc["DiER", ["seeds", "of"]].tolist() == [3, 3]
    assert made.loc["pixels", ["seeds", "of"]].tolist() == [1, 1]


def test_what_was_asked_after_a_look_at_test_stands_apart(tmp_path: Path) -> None:
    plan = Plan.model_validate(
        json.loads(plan_of().model_dump_json()) | {"explored": [{"ours": "three t", "theirs": ["pixels"], "sets": ["tiny"]}]}
    )
    contest(plan, tmp_path)
    made = tables.tables(plan, tmp_path)
    assert len(made["comparisons"]) == 2
    assert made["explored"]["ours"].tolist() == ["three t"]
    assert made["explored"]["p_holm"].tolist() == made["explored"]["p"].tolist()  # of one, and not of three
    text = page.markdown(plan, made["main"], made["comparisons"], made["explored"])
    assert text.index("Declared comparisons") < text.index("so an indication") < text.rindex("three t - pixels")


def test_declared_comparisons_say_what_may_be_claimed(tmp_path: Path) -> None:
    plan = plan_of()
    contest(plan, tmp_path)
    made = tables.tables(plan, tmp_path)["comparisons"].set_index("theirs")
    assert made.loc["pixels", "verdict"] == "better"
    assert made.loc["three t", "verdict"] == "undecided"
    assert made.loc["pixels", "p_holm"] >= 2 * made.loc["pixels", "p"] * (1 - 1e-9)
    assert 0 < made.loc["pixels", "low"] < made.loc["pixels", "difference"] < made.loc["pixels", "high"]
    assert made.loc["pixels", "verdict_pooled"] == "better"
    assert made.loc["pixels", "low_pooled"] < made.loc["pixels", "difference"] < made.loc["pixels", "high_pooled"]


def test_one_seed_is_no_result_and_what_has_not_run_is_said(tmp_path: Path) -> None:
    plan = plan_of()
    contest(plan, tmp_path, seeds=1)
    made = tables.tables(plan, tmp_path)
    assert made["comparisons"]["verdict"].tolist() == ["one seed is no result"] * 2
    assert made["comparisons"]["p_holm"].isna().all()
    text = page.markdown(plan, made["main"], made["comparisons"], made["explored"])
    assert "one seed is no result (of 3)" in text
    nothing = tables.tables(plan, tmp_path / "none")
    assert nothing["comparisons"]["verdict"].tolist() == ["not run"] * 2
    assert "not run (of 3)" in page.markdown(plan, nothing["main"], nothing["comparisons"], nothing["explored"])


def test_lines_of_another_plan_are_not_counted(tmp_path: Path) -> None:
    contest(plan_of(), tmp_path)
    longer = plan_of(steps={"tiny": {"DiER": 80}})
    assert tables.tables(longer, tmp_path)["main"].set_index("reading")["seeds"].to_dict() == {"DiER": 0, "three t": 0, "pixels": 1}


def test_copies_of_an_original_are_one_image_to_the_statistics(tmp_path: Path) -> None:
    plan = plan_of()
    contest(plan, tmp_path, copies=6)
    made = tables.tables(plan, tmp_path)["main"].set_index("reading").loc["DiER"]
    stored = [json.loads(text) for text in (tmp_path / "runs.jsonl").read_text().splitlines()]
    right = [unpack(record["probes"]["all"]["right"], IMAGES) for record in stored if record["reading"] == "DiER"]
    by_original = np.stack(right).reshape(3, IMAGES // 6, 6).mean(2)
    assert (made["all_low"], made["all_high"]) == pytest.approx(two_level(by_original).interval())


def test_the_other_tables(tmp_path: Path) -> None:
    plan = plan_of()
    contest(plan, tmp_path)
    made = tables.tables(plan, tmp_path)
    assert made["minutes"]["cpu_seconds"].unique().tolist() == [6.0, 30.0, 60.0]
    assert made["minutes"].groupby("step")["val"].first().tolist() == [0.5, 0.6, 0.65]  # the end is by the probe that chose
    assert made["occupancy"].query("reading == 'DiER'")["t"].tolist() == [100] * 3
    assert made["curve"].query("t == 999")["log_snr"].iloc[0] == pytest.approx(log_snr(999))
    assert set(made["linearity"]["r2"]) == {0.4}


def test_trials_stand_beside_the_results(tmp_path: Path) -> None:
    plan = Plan.model_validate(raw())
    Lines(tmp_path / "trials.jsonl").add([{"job": trial_jobs(plan, "DiER", "tiny")[1].fingerprint, "val": 0.4}])
    made = tables.tables(plan, tmp_path)
    assert made["trials"].to_dict("records") == [{"set": "tiny", "row": "DiER", "setting": '{"lr": 0.002}', "val": 0.4}]
    assert made["main"].set_index("reading").loc["DiER", ["seeds", "trials"]].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("value", "se", "seeds", "p", "says"),
    [
        (0.02, 0.003, 5, 0.01, "better"),
        (-0.02, 0.003, 5, 0.01, "worse"),
        (0.0005, 0.001, 5, 1.0, "equal within 0.5 points"),
        (0.004, 0.004, 5, 1.0, "undecided"),
        (0.02, 0.003, 1, math.nan, "one seed is no result"),
    ],
)
def test_verdicts(value: float, se: float, seeds: int, p: float, says: str) -> None:
    assert tables.verdict(tables.Effect(value, se, 10.0, seeds, np.zeros((5, 2))), p, 0.005) == says


def test_a_page_takes_the_tables_between_its_markers() -> None:
    begin, end = page.markers("plan")
    other = "\n".join(page.markers("studies"))
    before = f"# Results\n\n{begin}\nold\n{end}\n\nMore.\n{other}\n"
    after = page.with_tables(before, "new\n", "plan")
    assert after == f"# Results\n\n{begin}\n\nnew\n\n{end}\n\nMore.\n{other}\n"
    assert page.with_tables(after, "new\n", "plan") == after
    with pytest.raises(ValueError, match="needs one line"):
        page.with_tables("# Results\n", "new", "plan")


@pytest.mark.slow
def test_figures_are_the_same_each_time_and_of_the_tables_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of()
    contest(plan, tmp_path)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    assert tables.main(["--plan", str(tmp_path / "plan.json"), "--results", str(tmp_path)]) == 0
    arguments = ["--tables", str(tmp_path), "--out", str(tmp_path / "images")]
    assert plots.main(arguments) == 0
    assert "no regret" in capsys.readouterr().err
    before = {file.name: file.read_bytes() for file in (tmp_path / "images").iterdir()}
    assert set(before) == {f"contest-{name}.svg" for name in plots.FIGURES if name != "regret"}
    scores = [{"t": t, "log_snr": log_snr(t), "gap_nats": 0.1} for t in (0, 999)]
    lines = [json.dumps({"set": "tiny", "reading": "DiER", "seed": seed, "scores": scores}) for seed in (0, 1)]
    (tmp_path / "race-x0.jsonl").write_text("\n".join(lines) + "\n")
    assert tables.main(["--plan", str(tmp_path / "plan.json"), "--results", str(tmp_path)]) == 0
    regret = [{"way": way, "mean": 0.2, "worst": 0.7, "share": share} for way, share in (("golden", 0.1), ("fixed t = 300", 0.0))]
    pd.DataFrame(regret).to_csv(tmp_path / "regret-x0.csv")
    assert plots.main(arguments) == 0
    after = {file.name: file.read_bytes() for file in (tmp_path / "images").iterdir()}
    assert set(after) == {f"contest-{name}.svg" for name in plots.FIGURES}
    assert [name for name in before if before[name] != after[name]] == ["contest-curve.svg"]  # it has a lower half now


def test_the_tables_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--plan", str(tmp_path / "none.json"), "--results", str(tmp_path)]) == 2
    assert "none.json" in capsys.readouterr().err
