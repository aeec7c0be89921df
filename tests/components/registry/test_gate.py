"""The gate: its rules, and non-inferiority by the paired bootstrap against champions."""

from typing import Any

import numpy as np
import pytest

from components.common.settings import RegisterSettings
from components.probing.metrics import Bootstrap
from components.registry.gate import RESAMPLES, SEED, Champion, Evidence, Gate, Predictions, decide


def predictions(correct: np.ndarray) -> Predictions:
    return Predictions(np.arange(len(correct)), np.asarray(correct, np.float64))


def right(n: int, wrong: int) -> np.ndarray:
    return np.arange(n) >= wrong


def judge(
    new: np.ndarray,
    *champions: Champion,
    least: float = 0.5,
    margin: float = 0.03,
    validated: bool = True,
    classes: int = 10,
    task: str = "multi-class",
    summary: dict[str, Any] | None = None,
    **metrics: Any,
) -> Gate:
    return decide(
        Evidence(
            settings=RegisterSettings(min_accuracy=least, margin=margin),
            verdict={"passed": validated},
            summary=summary or {},
            metrics={
                "task": task,
                "class_names": ["c"] * classes,
                "test": {"accuracy": {"value": float(new.mean())}},
                **metrics,
            },
            dataset="same",
            predictions=predictions(new),
            champions=champions,
        )
    )


def champion(old: np.ndarray, dataset: str = "same", version: int = 7) -> Champion:
    return Champion(version, dataset, predictions(old))


def test_one_yes_or_no_label_is_judged_by_its_accuracy() -> None:
    assert judge(right(100, 0), classes=1, task="multi-label, binary-class").passed
    assert not judge(right(100, 60), classes=1, task="multi-label, binary-class").passed


GAP = [{"t": 0, "ratio": 1.5}, {"t": 100, "ratio": 24.6}]


def judge_unlabelled(
    *champions: Champion,
    kept: np.ndarray | float = 0.4,
    rank: float = 12.0,
    spread: float = 0.3,
    chance: float = 0.01,
    validated: bool = True,
    summary: dict[str, Any] | None = None,
    **settings: float,
) -> Gate:
    """The gate on images whose labels tell nothing apart; `kept` is the share of neighbours each test image keeps, or all do."""
    shares = np.asarray(kept) if isinstance(kept, np.ndarray) else np.full(200, kept)
    found = Bootstrap(len(shares), RESAMPLES, SEED).mean(shares)
    test = {"kept": found.row(), "effective_rank": {"value": rank}, "spread": {"value": spread}}
    return decide(
        Evidence(
            settings=RegisterSettings.model_validate(settings),
            verdict={"passed": validated},
            summary={"gap": GAP} if summary is None else summary,
            metrics={"task": "multi-class", "class_names": ["unlabelled"], "test": test, "chance": chance},
            dataset="same",
            predictions=measured(shares),
            champions=champions,
        )
    )


def measured(shares: np.ndarray, measure: str = "10 of 600") -> Predictions:
    return Predictions(np.arange(len(shares)), shares, measure)


def test_without_labels_a_healthy_model_passes_and_the_gate_says_by_what() -> None:
    gate = judge_unlabelled()
    assert gate.verdict == "passed"
    assert not any("accuracy" in reason for reason in gate.reasons)
    said = "\n".join(gate.reasons)
    for part in (
        "up to 24.6 times (t = 100)",
        "effective rank of the test embeddings, 12.00",
        "keep 0.4000",
        "no champion to compare",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"validated": False}, "did not pass validation"),
        ({"summary": {"gap": GAP, "encoder_used": False}}, "does not use the encoder"),
        ({"rank": 1.3}, "1.30, is below register.min_rank 2"),
        ({"rank": 5.0, "min_rank": 6.0}, "5.00, is below register.min_rank 6"),
        ({"spread": 0.001}, "collapsed: test embeddings differ by 0.001 of their size"),
        ({"kept": 0.04}, "keep 0.0400 of their neighbours"),
        ({"kept": np.repeat([0.0, 0.6], [180, 20])}, "not above register.min_kept 0.05"),  # 0.06, but not clear of 0.05
        ({"kept": 0.2, "chance": 0.25}, "not above chance, 0.25"),  # 40 training images
    ],
    ids=["data", "encoder", "rank", "rank set", "spread", "not steady", "not clear of the least", "by chance"],
)
def test_without_labels_each_rule_refuses_alone(changes: dict[str, Any], says: str) -> None:
    gate = judge_unlabelled(**changes)
    assert gate.verdict == "refused"
    assert len(gate.reasons) == 1
    assert says in gate.reasons[0]


def test_without_labels_the_champion_is_compared_by_neighbours_kept() -> None:
    old = np.tile([0.3, 0.5], 100)
    assert judge_unlabelled(Champion(7, "same", measured(old)), kept=old - 0.02).verdict == "passed"
    gate = judge_unlabelled(Champion(7, "same", measured(old)), kept=old - 0.04)
    assert gate.verdict == "refused"
    assert "may be worse than champion version 7 (difference -0.0400" in gate.reasons[0]


@pytest.mark.parametrize(
    ("old", "says"),
    [
        (Champion(7, "another", measured(np.full(200, 0.4))), "tested on another dataset"),
        (Champion(7, "same", None), "missing or damaged"),
        (Champion(7, "same", measured(np.full(200, 0.4), "20 of 600")), "counted in another way (20 of 600)"),
    ],
)
def test_without_labels_what_cannot_be_compared_is_uncompared(old: Champion, says: str) -> None:
    gate = judge_unlabelled(old)
    assert (gate.verdict, gate.passed) == ("uncompared", True)
    assert says in gate.reasons[-1]


def test_a_model_below_the_least_accuracy_is_refused_with_both_figures() -> None:
    gate = judge(right(100, 60), least=0.5)
    assert gate.verdict == "refused"
    assert gate.reasons == ["test accuracy 0.4000 is below register.min_accuracy 0.5"]


def test_the_least_accuracy_itself_passes() -> None:
    gate = judge(right(100, 50), least=0.5)
    assert gate.verdict == "passed"
    assert "no champion to compare with" in gate.reasons


def test_data_that_failed_validation_is_refused() -> None:
    assert judge(right(100, 0), validated=False).reasons == ["the data did not pass validation"]


@pytest.mark.parametrize(("summary", "passes"), [({}, True), ({"encoder_used": True}, True), ({"encoder_used": False}, False)])
def test_a_model_whose_encoder_is_not_used_is_refused(summary: dict[str, Any], passes: bool) -> None:
    gate = judge(right(100, 0), summary=summary)
    assert gate.passed == passes
    assert passes or "does not use the encoder" in gate.reasons[0]


def test_clearly_worse_than_the_champion_is_refused() -> None:
    gate = judge(right(500, 60), champion(right(500, 20)))
    assert not gate.passed
    assert len(gate.reasons) == 1
    assert "may be worse than champion version 7 (difference -0.0800" in gate.reasons[0]


def test_worse_within_the_margin_passes_and_says_by_how_much() -> None:
    new, old = right(500, 22), right(500, 20)[::-1]  # two images fewer, and other ones
    gate = judge(new, champion(old))
    assert gate.verdict == "passed"
    assert "no worse than champion version 7 (difference -0.0040" in gate.reasons[-1]
    assert "500 test images, paired; register.margin 0.03" in gate.reasons[-1]


def test_the_interval_has_to_lie_within_the_margin_not_only_around_zero() -> None:
    """A loss within chance used to pass whatever its size: on few images that is a large one."""
    new, old = right(60, 12), np.roll(right(60, 9), 30)  # five points fewer; the interval reaches from below -0.2 to above 0
    assert not judge(new, champion(old), margin=0.03).passed
    assert judge(new, champion(old), margin=0.3).passed


def test_equal_predictions_pass_without_a_margin_and_one_loss_does_not() -> None:
    assert judge(right(50, 5), champion(right(50, 5)), margin=0).passed
    assert not judge(right(50, 6), champion(right(50, 5)), margin=0).passed


def test_pairing_matters() -> None:
    """Eight images in 500 lost and none won is a narrow interval in pairs, and a wide one for two independent test sets."""
    assert judge(right(500, 108), champion(right(500, 100)), margin=0.03).passed
    assert not judge(right(500, 108), champion(np.roll(right(500, 100), 250)), margin=0.03).passed


def test_the_interval_is_that_of_resampling_pairs_one_by_one() -> None:
    random = np.random.default_rng(1)
    difference = (random.random(400) < 0.8).astype(float) - (random.random(400) < 0.75)
    found = Bootstrap(400, RESAMPLES, SEED).mean(difference)
    drawn = [difference[random.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert found.value == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)  # two and a half images


def test_copies_of_an_original_are_no_evidence_of_their_own() -> None:
    """A loss of 5 in 100 originals, seen in all ten copies of each: as 1,000 images it would lie within the margin."""
    old, new = np.repeat(right(100, 10), 10), np.repeat(np.roll(right(100, 15), 8), 10)
    assert judge(new, champion(old), margin=0.1).passed
    gate = judge(new, champion(old), margin=0.1, copies=10)
    assert not gate.passed
    assert "1000 test images, copies of 100, paired" in gate.reasons[0]


def test_each_champion_given_counts() -> None:
    new, present, best = right(500, 30), champion(right(500, 20)), champion(right(500, 5), version=3)
    assert judge(new, present, margin=0.04).passed
    gate = judge(new, present, best, margin=0.04)
    assert [reason[:34] for reason in gate.reasons] == ["may be worse than champion version"]
    assert "version 3" in gate.reasons[0]


def test_another_dataset_is_not_comparable_so_a_person_decides() -> None:
    gate = judge(right(500, 0), champion(right(500, 100), "another"))
    assert (gate.verdict, gate.passed) == ("uncompared", True)
    assert gate.reasons[-1] == "not comparable with champion version 7: it was tested on another dataset"


@pytest.mark.parametrize("old", [None, predictions(right(499, 0)), Predictions(np.arange(500)[::-1], np.ones(500))])
def test_a_champion_of_the_same_dataset_that_cannot_be_read_is_not_comparable(old: Predictions | None) -> None:
    gate = judge(right(500, 0), Champion(7, "same", old))
    assert gate.verdict == "uncompared"
    assert "missing or damaged" in gate.reasons[-1]


def test_what_is_refused_is_not_merely_uncompared() -> None:
    gate = judge(right(500, 400), champion(right(500, 0), "another"))
    assert gate.verdict == "refused"
    assert gate.reasons == ["test accuracy 0.2000 is below register.min_accuracy 0.5"]
