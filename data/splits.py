"""Splits that a set does not bring along: seeded, stratified, taken from train in whole groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.format import SplitName
from data.groups import Groups

Rows = npt.NDArray[np.int64]
RARE = 10
"""Combinations of labels with fewer images than this are pooled, else a share of them would round to all or nothing."""


@dataclass(frozen=True)
class Choice:
    """Which images make a split: ascending `rows` of the source's part `part`."""

    part: SplitName
    rows: Rows


def choose(
    labels: Mapping[SplitName, npt.NDArray[Any]],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Groups | None = None,
) -> tuple[dict[SplitName, Choice], list[str]]:
    """Three splits from the parts a source has, and a note on each that was made here.

    Official splits are kept whole. A missing test is cut from train first (`test_fraction` of it), then a missing val
    (`val_fraction` of what is left). Images of train with equal `groups` (N,) stay on one side. The rows depend on labels,
    fractions, seed and groups alone. Raises DataError where a split has no image.
    """
    whole: dict[SplitName, Choice] = {part: Choice(part, np.arange(len(found))) for part, found in labels.items()}
    splits, notes = dict(whole), []
    cuts: list[tuple[SplitName, float]] = [("test", test_fraction), ("val", val_fraction)]
    for stream, (name, fraction) in enumerate(cuts):
        if name in whole:
            continue
        rows = splits["train"].rows
        kept, taken = stratified(labels["train"][rows], fraction, seed, stream, None if groups is None else groups[rows])
        splits["train"], splits[name] = Choice("train", rows[kept]), Choice("train", rows[taken])
        got = f"{len(taken)} of {len(rows)} images ({len(taken) / max(len(rows), 1):.1%})"
        notes.append(f"{name} was made here from train: {fraction:.0%} of each class, seed {seed}: {got}; it is no official split")
    for name, choice in splits.items():
        if not len(choice.rows):
            cure = "add images" if name in whole else f"add images or groups, or raise data.{name}_fraction"
            raise DataError(f"split {name} has 0 images; {cure}")
    return splits, notes


def stratified(
    labels: npt.NDArray[Any], fraction: float, seed: int, stream: int = 0, groups: Groups | None = None
) -> tuple[Rows, Rows]:
    """Rows kept and rows taken, both ascending: about `fraction` of each class, in whole groups; without groups, rounded.

    A class of two or more groups stands on both sides (unless `fraction` is 0); a single group is kept. A group counts as of the
    rarest class in it, lest that class end on one side. For labels (N, L) a class is a combination of labels, the rare ones pooled.
    `stream` sets apart draws that share a seed.
    """
    stratum = _strata(labels)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes, taken = np.bincount(group), np.zeros(group.max(initial=-1) + 1, bool)
    numbers, counts = np.unique(stratum, return_counts=True)
    of_group = np.full(len(sizes), -1)
    for number in numbers[np.argsort(-counts, kind="stable")]:  # the rarest comes last, and stays
        of_group[group[stratum == number]] = number
    for number in numbers if fraction > 0 else ():
        members = np.flatnonzero(of_group == number)
        if len(members) < 2:
            continue
        total = int(sizes[members].sum())
        goal = min(max(round(fraction * total), 1), total - 1)
        got = 0
        for member in np.random.default_rng((seed, stream, int(number))).permutation(members):
            if got + sizes[member] <= goal:
                taken[member] = True
                got += sizes[member]
        left = members[~taken[members]]
        smallest = left[np.argmin(sizes[left])]
        # One more where that comes nearer to the goal, or where all were too large.
        taken[smallest] |= len(left) > 1 and (not got or got + sizes[smallest] - goal < goal - got)
    return np.flatnonzero(~taken[group]), np.flatnonzero(taken[group])


def _strata(labels: npt.NDArray[Any]) -> Rows:
    """The stratum of each image, (N,)."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    _, group, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1).astype(np.int64)
    return np.where(counts[group] < RARE, len(counts), group)
