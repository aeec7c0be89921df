"""Accuracy, balanced accuracy and AUC, each with its bootstrap: resamples of the images, drawn once a split and shared by all.

Sharing the resamples makes every comparison of two representations a paired one. The definitions are MedMNIST's (its Evaluator):
for several labels the accuracy is the mean over labels at a probability of 0.5, and the AUC is the mean over classes, one against
the rest. Scores are log-odds (N, K) float64 (`Linear.scores`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.probing.classifier import Array, Labels

CHUNK = 100


@dataclass(frozen=True)
class Estimate:
    """A value, and what it is in each resample (B,); `low` and `high` are its 95 % interval (percentile bootstrap)."""

    value: float
    draws: Array

    @cached_property
    def _interval(self) -> Array:
        known = self.draws[np.isfinite(self.draws)]
        return np.quantile(known, [0.025, 0.975]) if len(known) and math.isfinite(self.value) else np.full(2, np.nan)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return float(self._interval[0])

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return float(self._interval[1])

    def minus(self, other: "Estimate") -> "Estimate":
        """The paired difference to an estimate over the same resamples."""
        return Estimate(self.value - other.value, self.draws - other.draws)

    def row(self) -> dict[str, float | None]:
        """As JSON; null where there is nothing to compute, such as the AUC of a single class."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: round(number, 6) if math.isfinite(number) else None for name, number in numbers.items()}


class Bootstrap:
    """`resamples` draws of N images with replacement, as counts an image (B, N)."""

    def __init__(self, images: int, resamples: int, seed: int) -> None:
        rng = np.random.default_rng([seed, images])
        self.counts = np.empty((resamples, images), np.uint8)
        for row in self.counts:
            row[:] = np.bincount(rng.integers(images, size=images), minlength=images)

    def chunks(self) -> Iterator[Array]:
        """The counts, some resamples at a time, as float64 (b, N)."""
        for start in range(0, len(self.counts), CHUNK):
            yield self.counts[start : start + CHUNK].astype(np.float64)

    def mean(self, values: npt.NDArray[np.floating]) -> Estimate:
        """The mean of one number an image (N,), such as right or wrong, or the difference of two such."""
        return self.estimate(_mean_of(values))

    def estimate(self, weighted: "Weighted") -> Estimate:
        """A metric with its interval."""
        return Estimate(_plain(weighted, self.counts.shape[1]), np.concatenate([weighted(counts) for counts in self.chunks()]))


Weighted = Callable[[Array], Array]
"""A metric of fixed scores and labels as a function of how often each image counts, (b, N) to (b,)."""


def predicted(scores: Array, multi_label: bool) -> Labels:
    """Log-odds (N, K) to classes (N,), or to yes/no a label (N, L)."""
    return (scores > 0).astype(np.uint8) if multi_label else scores.argmax(axis=1)


def correct(scores: Array, labels: Labels) -> Array:
    """(N,) 1 where right, 0 where wrong; with several labels the share that is right."""
    right = predicted(scores, labels.ndim == 2) == labels
    return np.asarray(right.mean(axis=1) if labels.ndim == 2 else right, np.float64)


def evaluate(scores: Array, labels: Labels, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Every metric of scores (N, K) against labels (N,) or (N, L)."""
    return {name: estimate_of(name, scores, labels, bootstrap) for name in METRICS}


def estimate_of(metric: str, scores: Array, labels: Labels, bootstrap: Bootstrap) -> Estimate:
    """One metric of scores (N, K) against labels (N,) or (N, L); NaN without images."""
    return bootstrap.estimate(METRICS[metric](scores, labels)) if len(labels) else Estimate(math.nan, np.empty(0))


def value_of(metric: str, scores: Array, labels: Labels) -> float:
    """One metric without its interval; -1 where there is nothing to compute, so that anything else is chosen before it."""
    found = _plain(METRICS[metric](scores, labels), len(labels)) if len(labels) else math.nan
    return found if math.isfinite(found) else -1.0


def choosing_metric(labels: Labels, multi_label: bool) -> str:
    """The metric that t, C and variants are chosen by, from training labels (N,) or (N, L).

    AUC for several labels, where naming none is mostly right; balanced accuracy where the commonest class has more than twice as
    many images as the others on average; else accuracy.
    """
    if multi_label:
        return "auc"
    counts = np.sort(np.unique(labels, return_counts=True)[1])
    return "balanced_accuracy" if len(counts) > 1 and counts[-1] > 2 * counts[:-1].mean() else "accuracy"


def _plain(weighted: Weighted, images: int) -> float:
    return float(weighted(np.ones((1, images)))[0])


def _mean_of(values: npt.NDArray[np.floating]) -> Weighted:
    return lambda counts: np.asarray(counts @ values / len(values))


def _accuracy(scores: Array, labels: Labels) -> Weighted:
    return _mean_of(correct(scores, labels))


def _balanced_accuracy(scores: Array, labels: Labels) -> Weighted:
    """Mean recall over the classes that occur (with several labels: over yes and no of each)."""
    guess = predicted(scores, labels.ndim == 2)
    if labels.ndim == 2:
        columns = [(labels[:, i] == c, guess[:, i] == c) for i in range(labels.shape[1]) for c in (0, 1)]
    else:
        columns = [(labels == c, guess == c) for c in range(scores.shape[1])]
    columns = [(of, right) for of, right in columns if of.any()]
    members = np.stack([of for of, _ in columns], axis=1).astype(np.float64)  # (N, columns)
    hits = np.stack([of & right for of, right in columns], axis=1).astype(np.float64)

    def weighted(counts: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean((counts @ hits) / (counts @ members), axis=1))

    return weighted


def _auc(scores: Array, labels: Labels) -> Weighted:
    """Mean over classes (or labels) of the area under the curve, one against the rest; classes without both kinds are left out."""
    if labels.ndim == 2:
        tasks = [(scores[:, i], labels[:, i] == 1) for i in range(labels.shape[1])]
    else:  # of two classes the second alone, as is usual: the first's curve is the same
        tasks = [(scores[:, c], labels == c) for c in range(scores.shape[1])][1 if scores.shape[1] == 2 else 0 :]
    areas = [_area(score, positive) for score, positive in tasks if positive.any() and not positive.all()]

    def weighted(counts: Array) -> Array:
        if not areas:
            return np.full(len(counts), np.nan)
        found = np.stack([area(counts) for area in areas])
        known = np.isfinite(found)  # a resample may lack a rare class
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, found, 0).sum(0) / known.sum(0))

    return weighted


def _area(score: Array, positive: npt.NDArray[np.bool_]) -> Weighted:
    """The weight of pairs in which the positive scores higher, ties counting half."""
    order = np.argsort(score, kind="stable")
    ranked, yes_at = score[order], positive[order]
    ties = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # where each run of equal scores starts

    def weighted(counts: Array) -> Array:
        weights = counts[:, order]
        yes = np.add.reduceat(weights * yes_at, ties, axis=1)
        no = np.add.reduceat(weights * ~yes_at, ties, axis=1)
        below = np.cumsum(no, axis=1) - no
        with np.errstate(invalid="ignore"):
            return np.asarray((yes * (below + no / 2)).sum(1) / (yes.sum(1) * no.sum(1)))

    return weighted


METRICS: dict[str, Callable[[Array, Labels], Weighted]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "auc": _auc,
}
