"""Splits that a set does not bring along: seeded, stratified, taken from train."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.format import SplitName

Rows = npt.NDArray[np.int64]
RARE = 10
"""Combinations of labels with fewer images than this are pooled, else a share of them would round to all or nothing."""


@dataclass(frozen=True)
class Choice:
    """Which images make a split: ascending `rows` of the source's part `part`."""

    part: SplitName
    rows: Rows


def choose(
    labels: Mapping[SplitName, npt.NDArray[Any]], val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[SplitName, Choice], list[str]]:
    """Three splits from the parts a source has, and a note on each that was made here.

    Official splits are kept whole. A missing test is cut from train first (`test_fraction` of it), then a missing val
    (`val_fraction` of what is left). The rows depend on labels, fractions and seed alone.
    Raises DataError where a split has no image.
    """
    whole: dict[SplitName, Choice] = {part: Choice(part, np.arange(len(found))) for part, found in labels.items()}
    splits, notes = dict(whole), []
    cuts: list[tuple[SplitName, float]] = [("test", test_fraction), ("val", val_fraction)]
    for stream, (name, fraction) in enumerate(cuts):
        if name in whole:
            continue
        rows = splits["train"].rows
        kept, taken = stratified(labels["train"][rows], fraction, seed, stream)
        splits["train"], splits[name] = Choice("train", rows[kept]), Choice("train", rows[taken])
        notes.append(f"{name} was made here from train: {fraction:.0%} of each class, seed {seed}; it is no official split")
    for name, choice in splits.items():
        if not len(choice.rows):
            cure = "add images" if name in whole else f"add images, or raise data.{name}_fraction"
            raise DataError(f"split {name} has 0 images; {cure}")
    return splits, notes


def stratified(labels: npt.NDArray[Any], fraction: float, seed: int, stream: int = 0) -> tuple[Rows, Rows]:
    """Rows kept and rows taken, both ascending: `fraction` of each class, rounded.

    A class of two or more images stands on both sides (unless `fraction` is 0); a single image is kept. For labels (N, L) a
    class is a combination of labels, the rare ones pooled. `stream` sets apart draws that share a seed.
    """
    group = _groups(labels)
    taken = np.zeros(len(labels), dtype=bool)
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if fraction > 0 else 0
        taken[np.random.default_rng((seed, stream, int(number))).permutation(members)[:count]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def _groups(labels: npt.NDArray[Any]) -> Rows:
    """The stratum of each image, (N,)."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    _, group, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1).astype(np.int64)
    return np.where(counts[group] < RARE, len(counts), group)
