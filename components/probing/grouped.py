"""Metrics of many images as ratios of sums over groups of them, so that a resample of the groups costs nothing an image.

A resample of N images one by one costs N, and each one's AUC the ranks of all. Here the images stand in G random groups of about
N / G, and the groups are resampled: a mean over images has the same variance. A metric is a mean over classes of ratios of sums, so
each is summed once a group. The AUC is linear in the placements (DeLong, DeLong and Clarke-Pearson 1988): AUC = mean V10 = mean
V01, and a resample has AUC_b = mean_b V10 + mean_b V01 - AUC, which leaves out a term that vanishes as 1 / N.
"""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from components.probing.classifier import Array, Scores

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def sums(groups: Ints, values: npt.NDArray[np.number] | Bools) -> Array:
    """Sums of values (N,) over the images of each group, (G,); groups (N,) are numbers 0 .. G - 1."""
    return np.asarray(np.bincount(groups, weights=values), np.float64)


def mean(values: npt.NDArray[np.number], groups: Ints) -> Callable[[Array], Array]:
    """The mean of values (N,) as a function of how often each group counts, (b, G) to (b,)."""
    total, sizes = sums(groups, values), np.bincount(groups)
    return lambda counts: np.asarray(counts @ total / (counts @ sizes))


def mean_recall(columns: Iterable[tuple[Bools, Bools]], groups: Ints) -> Callable[[Array], Array]:
    """The mean over classes that occur of the share of its images (N,) that are right (N,)."""
    found = [(sums(groups, of), sums(groups, of & right)) for of, right in columns]
    members, hits = (np.stack([one[i] for one in found if one[0].any()], axis=1) for i in (0, 1))  # (G, classes)

    def weighted(counts: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean((counts @ hits) / (counts @ members), axis=1))

    return weighted


def mean_area(tasks: Iterable[tuple[Scores, Bools]], groups: Ints) -> Callable[[Array], Array]:
    """The mean over classes of the area under the curve, from scores (N,) and which images are of the class (N,)."""
    sizes, parts, areas = np.bincount(groups), [], []
    for scores, positive in tasks:
        placed = placements(scores, positive)
        parts.append([sums(groups, placed * positive), sums(groups, placed * ~positive), sums(groups, positive)])
        areas.append(placed[positive].mean())
    if not areas:
        return lambda counts: np.full(len(counts), np.nan)
    beaten, beating, members = (np.stack([part[i] for part in parts], axis=1) for i in range(3))  # (G, classes)

    def weighted(counts: Array) -> Array:
        yes, number = counts @ members, (counts @ sizes)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (counts @ beaten) / yes + (counts @ beating) / (number - yes) - np.array(areas)
        found = found.clip(0, 1)  # without the term that was left out it may end a little beyond
        known = np.isfinite(found)  # a resample may lack a rare class
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, found, 0).sum(1) / known.sum(1))

    return weighted


def placements(scores: Scores, positive: Bools) -> Array:
    """V10 of the positive images and V01 of the others, (N,): with what share of the other kind each is in the right order.

    Ties count half.
    """
    order = np.argsort(scores)
    ranked, yes = scores[order], positive[order]
    ties = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # where each run of equal scores starts
    lengths = np.diff(np.r_[ties, len(ranked)])
    yes_in = np.add.reduceat(yes, ties, dtype=np.int64)
    no_in = lengths - yes_in
    no_below = np.cumsum(no_in) - no_in / 2
    yes_above = yes_in.sum() - np.cumsum(yes_in) + yes_in / 2
    out = np.empty(len(scores))
    out[order] = np.where(yes, np.repeat(no_below / no_in.sum(), lengths), np.repeat(yes_above / yes_in.sum(), lengths))
    return out
