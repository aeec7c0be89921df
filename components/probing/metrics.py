"""Accuracy, balanced accuracy and AUC, each with its bootstrap: resamples of the images, drawn once a split and shared by all.

Sharing the resamples makes every comparison of two representations a paired one. The definitions are MedMNIST's (its Evaluator):
for several labels
the accuracy is the mean over labels at a threshold of 0.5, and the AUC is the mean over classes, one against the rest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.probing.classifier import Array, Floats, Labels

CHUNK = 100


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval (percentile bootstrap)."""

    value: float
    low: float
    high: float

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
        draws = np.concatenate([counts @ values for counts in self.chunks()]) / len(values)
        return _estimate(float(values.mean()), draws)


def predicted(scores: Floats, multi_label: bool) -> Labels:
    """Scores (N, K) to classes (N,), or to yes/no a label (N, L)."""
    return (scores > 0.5).astype(np.uint8) if multi_label else scores.argmax(axis=1)


def correct(scores: Floats, labels: Labels) -> Array:
    """(N,) 1 where right, 0 where wrong; with several labels the share that is right."""
    right = predicted(scores, labels.ndim == 2) == labels
    return np.asarray(right.mean(axis=1) if labels.ndim == 2 else right, np.float64)


def evaluate(scores: Floats, labels: Labels, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """All three metrics of scores (N, K) against labels (N,) or (N, L)."""
    return {
        "accuracy": bootstrap.mean(correct(scores, labels)),
        "balanced_accuracy": _balanced_accuracy(scores, labels, bootstrap),
        "auc": _auc(scores, labels, bootstrap),
    }


def _balanced_accuracy(scores: Floats, labels: Labels, bootstrap: Bootstrap) -> Estimate:
    """Mean recall over the classes that occur (with several labels: over yes and no of each)."""
    guess = predicted(scores, labels.ndim == 2)
    if labels.ndim == 2:
        columns = [(labels[:, i] == c, guess[:, i] == c) for i in range(labels.shape[1]) for c in (0, 1)]
    else:
        columns = [(labels == c, guess == c) for c in range(scores.shape[1])]
    columns = [(of, right) for of, right in columns if of.any()]
    members = np.stack([of for of, _ in columns], axis=1).astype(np.float64)  # (N, columns)
    hits = np.stack([of & right for of, right in columns], axis=1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        draws = [np.nanmean((counts @ hits) / (counts @ members), axis=1) for counts in bootstrap.chunks()]
    return _estimate(float((hits.sum(0) / members.sum(0)).mean()), np.concatenate(draws))


def _auc(scores: Floats, labels: Labels, bootstrap: Bootstrap) -> Estimate:
    """Mean over classes (or labels) of the area under the curve, one against the rest; classes without both kinds are left out."""
    if labels.ndim == 2:
        tasks = [(scores[:, i], labels[:, i] == 1) for i in range(labels.shape[1])]
    else:  # of two classes the second alone, as is usual: the first's curve is the same
        tasks = [(scores[:, c], labels == c) for c in range(scores.shape[1])][1 if scores.shape[1] == 2 else 0 :]
    tasks = [(score, positive) for score, positive in tasks if positive.any() and not positive.all()]
    if not tasks:
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = np.mean([_areas(s, p, np.ones((1, len(p))))[0] for s, p in tasks])
    draws = [np.nanmean([_areas(s, p, counts) for s, p in tasks], axis=0) for counts in bootstrap.chunks()]
    return _estimate(float(value), np.concatenate(draws))


def _areas(score: Floats, positive: npt.NDArray[np.bool_], counts: Array) -> Array:
    """The area for each resample (b,): the weight of pairs in which the positive scores higher, ties counting half."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    ties = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # where each run of equal scores starts
    weights = counts[:, order]
    yes = np.add.reduceat(weights * positive[order], ties, axis=1)
    no = np.add.reduceat(weights * ~positive[order], ties, axis=1)
    below = np.cumsum(no, axis=1) - no
    with np.errstate(invalid="ignore"):
        return np.asarray((yes * (below + no / 2)).sum(1) / (yes.sum(1) * no.sum(1)))


def _estimate(value: float, draws: Array) -> Estimate:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high))
