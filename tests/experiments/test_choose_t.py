"""The race of ways to choose t: what regret is, what is chosen on other sets, and one race over a real small model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from components.selecting.choose import METHODS
from components.selecting.label_free import SCORES
from experiments.choose_t import REFERENCE, run, train_models
from experiments.choosing import LEFT_OUT, leave_one_out, subsets, table
from experiments.plan import Plan
from model.config import ModelConfig
from model.dier import DiER
from model.weights import load_model, save_model
from tests.experiments.test_plan import raw


def line(name: str, good: str, tests: list[float], seed: int = 0) -> dict:
    """A race over four t in which the score `good` ranks them as test does, and the others the wrong way round."""
    curve = [{"t": t, "log_snr": -float(t), "val": test, "test": test} for t, test in enumerate(tests)]
    scores = [{score: test if score == good else -test for score in SCORES} for test in tests]
    chosen = {
        REFERENCE: {"t": 1, "test": max(tests), "seconds": 100.0},
        "label_free": {"t": 0, "test": tests[0], "seconds": 5.0},
        "golden": {"t": 2, "test": tests[2], "seconds": 10.0},
    }
    return {"set": name, "seed": seed, "curve": curve, "scores": scores, "chosen": chosen, "sweep_seconds": 100.0}


LINES = [
    line("a", "lidar", [0.5, 0.9, 0.8, 0.4]),
    line("b", "lidar", [0.6, 0.7, 0.6, 0.3]),
    line("c", "rankme", [0.5, 0.6, 0.7, 0.2]),
]


def lost_golden(line: dict) -> float:
    return 100 * (line["chosen"][REFERENCE]["test"] - line["chosen"]["golden"]["test"])


def test_the_table_has_mean_worst_and_cost() -> None:
    rows = {row["way"]: row for row in table(LINES)}
    assert rows[REFERENCE] | {"worst_set": ""} == {
        "way": REFERENCE, "sets": 3, "mean": 0, "low": 0, "high": 0, "worst": 0, "worst_set": "", "share": 1
    }  # fmt: skip
    golden = rows["golden"]
    assert (golden["mean"], golden["worst"], golden["share"]) == (pytest.approx(20 / 3, abs=1e-3), 10, 0.1)
    interval = stats.ttest_1samp([lost_golden(line) for line in LINES], 0).confidence_interval(0.95)
    assert (golden["low"], golden["high"]) == pytest.approx(tuple(interval), abs=1e-3)
    assert rows["label-free, lidar alone"]["mean"] == pytest.approx(50 / 3, abs=1e-3)  # wrong on c alone
    assert rows["label-free, lidar alone"]["worst_set"] == "c"
    assert rows["random"]["mean"] == pytest.approx((25 + 15 + 20) / 3, abs=1e-3)


def test_scores_are_chosen_on_the_other_sets_alone() -> None:
    """For c the others say lidar, which is wrong there; for a the others disagree, and c's own score is no help to itself."""
    found = leave_one_out(LINES)
    assert found["c"] == (("lidar",), pytest.approx(50))
    assert len(subsets()) == 2 ** len(SCORES) - 1
    assert {row["way"] for row in table(LINES)} >= {LEFT_OUT}
    with pytest.raises(ValueError, match=r"a is all there is: race on more"):
        leave_one_out(LINES[:1])


def test_seeds_of_a_set_count_as_one_set() -> None:
    doubled = [*LINES, line("a", "lidar", [0.5, 0.9, 0.9, 0.4], seed=1)]
    golden = next(row for row in table(doubled) if row["way"] == "golden")
    assert (golden["sets"], golden["mean"]) == (3, pytest.approx((5 + 10 + 0) / 3, abs=1e-3))


@pytest.mark.slow
def test_a_race_over_a_real_model_goes_on_where_it_ended(tmp_path: Path) -> None:
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)
    cuts = {"train": slice(0, 300), "val": slice(300, 500), "test": slice(500, 700)}
    arrays = {f"{split}_images": images[cut] for split, cut in cuts.items()}
    arrays |= {f"{split}_labels": load_digits().target[cut, None] for split, cut in cuts.items()}
    np.savez(tmp_path / "few.npz", **arrays)
    network = DiER(ModelConfig(1, 32, 2, image_height=8, image_width=8, channels=1, patch_size=2, embed_dim=16))
    for folder in ("few", "few-s3"):
        (tmp_path / "models" / folder).mkdir(parents=True)
        save_model(tmp_path / "models" / folder, network, network.state_dict())
    out, said = tmp_path / "race.jsonl", []
    for _ in range(2):
        run(tmp_path / "models", tmp_path, out, {"train": 200, "val": 100, "test": 100}, said.append)
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(one["set"], one["seed"]) for one in lines] == [("few", 0), ("few", 3)]
    assert len(said) == 2
    for one in lines:
        assert set(one["chosen"]) == {*METHODS, REFERENCE, "fixed log-SNR 2.1", "fixed t = 300"}
        best = max(one["curve"], key=lambda row: row["val"])
        assert one["chosen"][REFERENCE]["test"] == best["test"]
        assert [row["t"] for row in one["scores"]] == [row["t"] for row in one["curve"]]
        assert all(len(three["timesteps"]) == 3 for three in one["three"].values())
    assert {k: v for k, v in lines[0]["chosen"]["halving"].items() if k != "seconds"} == {
        k: v for k, v in lines[1]["chosen"]["halving"].items() if k != "seconds"
    }


def test_models_of_a_row_are_trained_where_they_are_missing(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    labels = np.arange(24)[:, None] % 2
    arrays = {f"{split}_{what}": of for split in ("train", "val", "test") for what, of in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "few.npz", **arrays)
    network = {"depth": 1, "dim": 32, "heads": 2, "patch_size": 4, "embed_dim": 16, "pool": "mean"}
    row = {"method": "dier", "setting": {**network, "prediction": "eps", "condition_dropout": 0.5}, "sets": ["few"]}
    plan = Plan.model_validate(raw(seeds=[0, 3], rows={"eps": row}, steps={"few": {"eps": 2}}, comparisons=[]))
    said: list[str] = []
    for _ in range(2):
        train_models(plan, "eps", tmp_path / "models", tmp_path, said.append)
    assert said == ["few-s0: 2 steps of eps", "few-s3: 2 steps of eps"]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["few-s0", "few-s3"]
    one, other = (load_model(tmp_path / "models" / name) for name in ("few-s0", "few-s3"))
    assert one.config.prediction == "eps"
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert json.loads((tmp_path / "models" / "few-s0" / "settings.json").read_text())["train"]["condition_dropout"] == 0.5
