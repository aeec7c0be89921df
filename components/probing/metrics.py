"""Accuracy, balanced accuracy and AUC, each with its bootstrap: resamples of the images, drawn once a split and shared by all.

Sharing the resamples makes every comparison of two representations a paired one. The definitions are MedMNIST's (its Evaluator):
for several labels the accuracy is the mean over labels at a probability of 0.5, and the AUC is the mean over classes, one against
the rest. Scores are log-odds (N, K) (`Linear.scores`). Of more than `EXACT` images random groups are resampled (`grouped.py`).
Copies of one original (`data.copies`) say the same thing several times: originals are resampled, each with all of its copies.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from components.probing import grouped
from components.probing.classifier import Array, Labels, Scores
from components.probing.grouped import Bools, Ints

CHUNK = 100
EXACT = 20_000
"""Images that are resampled one by one; of more, groups of them."""
GROUPS = 10_000
"""Groups of which there is a resample: their number alone gives the width of an interval an error of 1 / sqrt(2 GROUPS) = 0.7 %."""


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
    """`resamples` draws of N images with replacement, as counts an image (B, N).

    Of images that are `copies` of N / copies originals, row r of original r // copies, draws of originals. Of more than `EXACT`
    images, draws of groups: counts a group (B, G), and `groups` (N,) says which one an image is in. An original is one, or, of more
    than `EXACT` originals, GROUPS random ones of equal size (but for one original) are.
    """

    def __init__(self, images: int, resamples: int, seed: int, copies: int = 1) -> None:
        rng, originals = np.random.default_rng([seed, images]), images // copies
        self.groups: Ints | None = None
        units, self._repeats = originals, copies
        if images > EXACT:
            group = np.arange(originals)
            if originals > EXACT:
                group, units = rng.permutation(originals) % GROUPS, GROUPS
            self.groups, self._repeats = np.repeat(group, copies), 1
        self.counts = np.empty((resamples, units), np.uint8)
        for row in self.counts:
            row[:] = np.bincount(rng.integers(units, size=units), minlength=units)

    def chunks(self) -> Iterator[Array]:
        """The counts, some resamples at a time, as float64 (b, N) or (b, G)."""
        for start in range(0, len(self.counts), CHUNK):
            yield np.repeat(self.counts[start : start + CHUNK].astype(np.float64), self._repeats, axis=1)

    def mean(self, values: npt.NDArray[np.floating]) -> Estimate:
        """The mean of one number an image (N,), such as right or wrong, or the difference of two such."""
        return self.estimate(_mean_of(values, self.groups))

    def estimate(self, weighted: "Weighted") -> Estimate:
        """A metric with its interval."""
        return Estimate(
            _plain(weighted, self.counts.shape[1] * self._repeats), np.concatenate([weighted(counts) for counts in self.chunks()])
        )


Weighted = Callable[[Array], Array]
"""A metric of fixed scores and labels as a function of how often each image (or group) counts, (b, N) to (b,)."""


def predicted(scores: Scores, multi_label: bool) -> Labels:
    """Log-odds (N, K) to classes (N,), or to yes/no a label (N, L)."""
    return (scores > 0).astype(np.uint8) if multi_label else scores.argmax(axis=1)


def correct(scores: Scores, labels: Labels) -> Array:
    """(N,) 1 where right, 0 where wrong; with several labels the share that is right."""
    return right_of(predicted(scores, labels.ndim == 2), labels)


def right_of(guess: Labels, labels: Labels) -> Array:
    """`correct` of what is predicted, (N,) or (N, L)."""
    right = guess == labels
    return np.asarray(right.mean(axis=1) if labels.ndim == 2 else right, np.float64)


def evaluate(scores: Scores, labels: Labels, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Every metric of scores (N, K) against labels (N,) or (N, L)."""
    return {name: estimate_of(name, scores, labels, bootstrap) for name in METRICS}


def estimate_of(metric: str, scores: Scores, labels: Labels, bootstrap: Bootstrap) -> Estimate:
    """One metric of scores (N, K) against labels (N,) or (N, L); NaN without images."""
    if not len(labels):
        return Estimate(math.nan, np.empty(0))
    return bootstrap.estimate(METRICS[metric](scores, labels, bootstrap.groups))


def value_of(metric: str, scores: Scores, labels: Labels) -> float:
    """One metric without its interval; -1 where there is nothing to compute, so that anything else is chosen before it."""
    if not len(labels):
        return -1.0
    together = np.zeros(len(labels), np.int64) if len(labels) > EXACT else None  # one group of all
    found = _plain(METRICS[metric](scores, labels, together), len(labels) if together is None else 1)
    return found if math.isfinite(found) else -1.0


def spread(v: npt.NDArray[np.floating[Any]]) -> float:
    """How much embeddings v (N, D) differ between images: their standard deviation over images in units of their size (RMS)."""
    return float(np.sqrt(v.var(0).mean() / max(np.square(v).mean(), 1e-30)))


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


def _mean_of(values: npt.NDArray[np.floating], groups: Ints | None) -> Weighted:
    return (lambda counts: np.asarray(counts @ values / len(values))) if groups is None else grouped.mean(values, groups)


def _accuracy(scores: Scores, labels: Labels, groups: Ints | None) -> Weighted:
    return _mean_of(correct(scores, labels), groups)


def _balanced_accuracy(scores: Scores, labels: Labels, groups: Ints | None) -> Weighted:
    """Mean recall over the classes that occur (with several labels: over yes and no of each)."""
    if groups is not None:
        return grouped.mean_recall(_recalls(scores, labels), groups)
    columns = [(of, right) for of, right in _recalls(scores, labels) if of.any()]
    members = np.stack([of for of, _ in columns], axis=1).astype(np.float64)  # (N, columns)
    hits = np.stack([of & right for of, right in columns], axis=1).astype(np.float64)

    def weighted(counts: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean((counts @ hits) / (counts @ members), axis=1))

    return weighted


def _recalls(scores: Scores, labels: Labels) -> Iterator[tuple[Bools, Bools]]:
    """For each class, or yes and no of each label, which images are of it and which are said to be, (N,) each."""
    guess = predicted(scores, labels.ndim == 2)
    if labels.ndim == 2:
        return ((labels[:, i] == c, guess[:, i] == c) for i in range(labels.shape[1]) for c in (0, 1))
    return ((labels == c, guess == c) for c in range(scores.shape[1]))


def _auc(scores: Scores, labels: Labels, groups: Ints | None) -> Weighted:
    """Mean over classes (or labels) of the area under the curve, one against the rest; classes without both kinds are left out."""
    if labels.ndim == 2:
        columns = ((scores[:, i], labels[:, i] == 1) for i in range(labels.shape[1]))
    else:  # of two classes the second alone, as is usual: the first's curve is the same
        columns = ((scores[:, c], labels == c) for c in range(1 if scores.shape[1] == 2 else 0, scores.shape[1]))
    tasks = ((score, positive) for score, positive in columns if positive.any() and not positive.all())
    if groups is not None:
        return grouped.mean_area(tasks, groups)
    areas = [_area(score, positive) for score, positive in tasks]

    def weighted(counts: Array) -> Array:
        if not areas:
            return np.full(len(counts), np.nan)
        by_image = np.ascontiguousarray(counts.T)
        found = np.stack([area(by_image) for area in areas])
        known = np.isfinite(found)  # a resample may lack a rare class
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, found, 0).sum(0) / known.sum(0))

    return weighted


def _area(score: Scores, positive: Bools) -> Weighted:
    """The weight of pairs in which the positive scores higher, ties counting half, from counts (N, b).

    Counts are whole numbers, so that every sum here is exact, in whatever order: between two positives the others need no ranks.
    """
    ranked = np.unique(score[positive])  # (p,)
    place = np.searchsorted(ranked, score, "left") + np.searchsorted(ranked, score, "right")  # 2r + 1 where it ties with the r-th
    sum_yes = _sums(place[positive] // 2, positive, len(ranked))
    sum_no = _sums(place[~positive], ~positive, 2 * len(ranked) + 1)

    def weighted(counts: Array) -> Array:
        yes, no = sum_yes @ counts, sum_no @ counts  # (p, b), (2p + 1, b)
        below, ties = np.cumsum(no, axis=0)[:-1:2], no[1::2]
        with np.errstate(invalid="ignore"):
            return np.asarray((yes * (below + ties / 2)).sum(0) / (yes.sum(0) * no.sum(0)))

    return weighted


def _sums(place: Ints, of: Bools, size: int) -> csr_array:
    """Sums over the images `of` (N,) by place, as a matrix (size, N)."""
    return csr_array((np.ones(len(place)), (place, np.flatnonzero(of))), shape=(size, len(of)))


METRICS: dict[str, Callable[[Scores, Labels, Ints | None], Weighted]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "auc": _auc,
}
