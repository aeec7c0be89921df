"""The gate: thresholds, and the paired bootstrap against the champion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.registry.gate import Champion, Gate, Predictions, decide, paired_difference


def predictions(correct: np.ndarray) -> Predictions:
    return Predictions(np.arange(len(correct)), np.asarray(correct, np.float64))


def right(n: int, wrong: int) -> np.ndarray:
    return np.arange(n) >= wrong


def judge(
    new: np.ndarray, champion: Champion | None = None, *, least: float = 0.5, validated: bool = True, classes: int = 10
) -> Gate:
    return decide(
        validated=validated,
        classes=classes,
        accuracy=float(new.mean()),
        min_accuracy=least,
        dataset="same",
        predictions=predictions(new),
        champion=champion,
    )


def test_an_accuracy_over_a_single_class_is_no_evidence() -> None:
    gate = judge(right(100, 0), classes=1)
    assert not gate.passed
    assert "single class" in gate.reasons[0]


def champion(old: np.ndarray, dataset: str = "same") -> Champion:
    return Champion(7, dataset, predictions(old))


def test_a_model_below_the_least_accuracy_is_refused_with_both_figures() -> None:
    gate = judge(right(100, 60), least=0.5)
    assert not gate.passed
    assert gate.reasons == ["test accuracy 0.4000 is below register.min_accuracy 0.5"]


def test_the_least_accuracy_itself_passes() -> None:
    gate = judge(right(100, 50), least=0.5)
    assert gate.passed
    assert "no champion to compare with" in gate.reasons


def test_data_that_failed_validation_is_refused() -> None:
    assert judge(right(100, 0), validated=False).reasons == ["the data did not pass validation"]


def test_clearly_worse_than_the_champion_is_refused() -> None:
    gate = judge(right(500, 60), champion(right(500, 20)))
    assert not gate.passed
    assert len(gate.reasons) == 1
    assert "worse than the champion, version 7 (difference -0.0800" in gate.reasons[0]


def test_worse_within_chance_passes_and_says_by_how_much() -> None:
    new, old = right(500, 22), right(500, 20)[::-1]  # two images fewer, and other ones
    gate = judge(new, champion(old))
    assert gate.passed
    assert "no worse than the champion, version 7 (difference -0.0040" in gate.reasons[-1]


def test_pairing_matters() -> None:
    """Four images in 500 lost and none won is significant in pairs, far within chance for two independent test sets."""
    assert not judge(right(500, 104), champion(right(500, 96))).passed


def test_another_dataset_is_not_comparable_and_does_not_block() -> None:
    gate = judge(right(500, 200), champion(right(500, 0), "another"))
    assert gate.passed
    assert gate.reasons[-1] == "not comparable with the champion, version 7: it was tested on another dataset"


@pytest.mark.parametrize("old", [None, predictions(right(499, 0)), Predictions(np.arange(500)[::-1], np.ones(500))])
def test_a_champion_of_the_same_dataset_that_cannot_be_read_blocks(old: Predictions | None) -> None:
    gate = judge(right(500, 0), Champion(7, "same", old))
    assert not gate.passed
    assert "missing or damaged" in gate.reasons[0]


def test_the_interval_is_that_of_resampling_pairs_one_by_one() -> None:
    random = np.random.default_rng(1)
    new, old = random.random(400) < 0.8, random.random(400) < 0.75
    mean, low, high = paired_difference(predictions(new), predictions(old))
    difference = new.astype(float) - old
    drawn = [difference[random.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert mean == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)  # 0.006: two and a half images


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=60))
def test_the_difference_is_seeded_bounded_and_around_its_mean(pairs: list[tuple[float, float]]) -> None:
    """Shares of right labels (multi-label sets) count as they are."""
    new, old = (predictions(np.array(side)) for side in zip(*pairs, strict=True))
    mean, low, high = paired_difference(new, old)
    assert (mean, low, high) == paired_difference(new, old)
    assert mean == pytest.approx(float(np.mean(new.correct - old.correct)), abs=1e-12)
    worst, best = (new.correct - old.correct).min(), (new.correct - old.correct).max()
    assert worst - 1e-12 <= low <= high <= best + 1e-12
    assert low - 1e-12 <= mean <= high + 1e-12


def test_equal_predictions_differ_by_nothing() -> None:
    assert paired_difference(predictions(right(50, 5)), predictions(right(50, 5))) == (0.0, 0.0, 0.0)
