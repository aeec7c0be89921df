"""Intervals over copies are those of their originals: the cluster bootstrap, and halves of val that keep copies together."""

import math

import numpy as np
import pytest

from components.probing import metrics
from components.probing.metrics import EXACT, METRICS, Bootstrap, Estimate, estimate_of
from components.probing.sweep import halves
from tests.components.test_probing_large import guesses

COPIES = 6


def copied(originals: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, K) and labels (N,), each original `COPIES` times in a row, with noise of its own in each copy."""
    scores, labels = guesses(originals, seed, rare=0.2)
    noise = np.random.default_rng(seed + 1).normal(scale=0.3, size=(COPIES * originals, 3))
    return np.round(np.repeat(scores, COPIES, axis=0) + noise, 2), np.repeat(labels, COPIES)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_copies_have_the_intervals_of_their_originals(metric: str) -> None:
    scores, labels = guesses(300, rare=0.2)
    boot = Bootstrap(300 * COPIES, 500, 0, COPIES)
    found = estimate_of(metric, np.repeat(scores, COPIES, axis=0), np.repeat(labels, COPIES), boot)
    same = Bootstrap(300, 500, 0)
    same.counts = boot.counts
    expected = estimate_of(metric, scores, labels, same)
    assert found.value == pytest.approx(expected.value)
    np.testing.assert_allclose(found.draws, expected.draws)


def test_the_width_is_that_of_the_originals_means() -> None:
    """Closed form: a mean over clusters of equal size has the standard error of the clusters' means."""
    share = np.random.default_rng(0).random(400)  # how often a copy of each original is right
    values = (np.random.default_rng(1).random((400, COPIES)) < share[:, None]).astype(np.float64)
    found = Bootstrap(values.size, 4000, 0, COPIES).mean(values.reshape(-1))
    error = values.mean(1).std() / math.sqrt(400)
    assert found.draws.std() == pytest.approx(error, rel=0.05)
    naive = Bootstrap(values.size, 4000, 0).mean(values.reshape(-1))
    assert found.draws.std() > 1.4 * naive.draws.std(), "which resampling copies would hide"


def test_a_resample_takes_all_copies_or_none() -> None:
    boot = Bootstrap(COPIES * 50, 200, 0, COPIES)
    counts = np.concatenate(list(boot.chunks()))
    assert (boot.groups, counts.shape) == (None, (200, 300))
    by_original = counts.reshape(200, 50, COPIES)
    assert (by_original == by_original[..., :1]).all()
    assert (counts.sum(1) == 300).all()
    plain, one = Bootstrap(50, 200, 0), Bootstrap(50, 200, 0, 1)
    np.testing.assert_array_equal(np.concatenate(list(plain.chunks())), np.concatenate(list(one.chunks())))


@pytest.mark.parametrize("metric", METRICS)
def test_of_many_copies_the_originals_are_the_groups(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the same resamples: summed by original, and image by image."""
    scores, labels = copied(4000)
    grouped = Bootstrap(len(labels), 100, 0, COPIES)
    assert grouped.groups is not None
    assert (len(labels) > EXACT, len(np.unique(grouped.groups))) == (True, 4000)
    found = estimate_of(metric, scores, labels, grouped)
    monkeypatch.setattr(metrics, "EXACT", len(labels))
    exact = Bootstrap(len(labels), 100, 0, COPIES)
    np.testing.assert_array_equal(exact.counts, grouped.counts)
    expected = estimate_of(metric, scores, labels, exact)
    assert found.value == pytest.approx(expected.value)
    np.testing.assert_allclose(found.draws, expected.draws, atol=2e-4)  # the AUC leaves out a term of 1 / N


def test_of_many_originals_random_groups_hold_all_copies_of_each() -> None:
    groups = Bootstrap(COPIES * (EXACT + 5), 100, 0, COPIES).groups
    assert groups is not None
    assert (groups.reshape(-1, COPIES) == groups[::COPIES, None]).all()
    assert set(np.bincount(groups[::COPIES])) == {2, 3}


@pytest.mark.parametrize("several", [False, True])
def test_the_halves_of_val_share_no_original(several: bool) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (101, 4)) if several else np.random.default_rng(0).integers(0, 7, 101)
    one, other = halves(np.repeat(labels, COPIES, axis=0), 3, COPIES)
    assert sorted([*one, *other]) == list(range(101 * COPIES))
    assert not set(one // COPIES) & set(other // COPIES)
    for half, expected in zip((one, other), halves(labels, 3), strict=True):
        np.testing.assert_array_equal(half, (expected[:, None] * COPIES + np.arange(COPIES)).reshape(-1))


def test_a_difference_over_copies_stays_paired() -> None:
    rng = np.random.default_rng(0)
    one = np.repeat(rng.random(500) < 0.7, COPIES).astype(np.float64)
    other = np.where(np.repeat(rng.random(500) < 0.02, COPIES), 1 - one, one)
    boot = Bootstrap(len(one), 500, 0, COPIES)
    found: Estimate = boot.mean(one).minus(boot.mean(other))
    np.testing.assert_allclose(found.draws, boot.mean(one - other).draws, atol=1e-12)
    assert found.draws.std() == pytest.approx((one - other).std() / math.sqrt(500), rel=0.1)
