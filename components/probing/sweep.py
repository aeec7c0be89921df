"""The sweep: every candidate fitted on train and scored on val; per representation what is best there reads test once.

A probe is fitted on a sample of a large train split. Val and test are scored whole, in pieces.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from components.common.settings import ProbeSettings
from components.probing.candidate import Candidate, check_whole, gather
from components.probing.classifier import Labels, Linear, Scores, fit_grid
from components.probing.metrics import EXACT, Bootstrap, Estimate, choosing_metric, estimate_of, evaluate, predicted, value_of
from data.format import Dataset, SplitName

Key = TypeVar("Key", bound=Hashable)
Ints = npt.NDArray[np.int64]
LARGEST_FIT = 100_000
"""Training images that a probe is fitted on at most, unless probe.train_limit says otherwise: 0.9 GB of 28 x 28 x 3 pixels."""


@dataclass(frozen=True)
class Scored:
    """A candidate with its best C on val.

    The halves are for the test of the peak over t: C is chosen again on one half of val (`choosing_half`, the value of the choosing
    metric there), and `testing_half` is what that probe gives on the other.
    """

    candidate: Candidate
    c: float
    probe: Linear
    val: dict[str, Estimate]
    choosing_half: float
    testing_half: Estimate


@dataclass(frozen=True)
class Tested:
    """The chosen candidate of a representation, on test; `guess` is what it predicts there, (N,) or (N, L)."""

    scored: Scored
    test: dict[str, Estimate]
    guess: Labels


@dataclass
class Sweep:
    """Labels, resamples and settings that every candidate shares."""

    settings: ProbeSettings
    dataset: Dataset

    def __post_init__(self) -> None:
        info, settings = self.dataset.info, self.settings
        self._labels: dict[SplitName, Labels] = {}
        count = info.counts["train"]
        # at random over all, not class by class: a class's share of so many images differs little from its share of all
        order = np.random.default_rng(settings.seed).permutation(count)[: settings.train_limit or LARGEST_FIT]
        self.train_images: Ints = np.sort(order)
        resamples, seed, copies = settings.bootstrap, settings.seed, info.copies
        self.bootstraps = {s: Bootstrap(info.counts[s], resamples, seed, copies) for s in ("val", "test")}
        self.halves = halves(self.labels("val"), seed, copies)
        self.half_bootstrap = Bootstrap(len(self.halves[1]), resamples, seed, copies)

    @cached_property
    def chosen_by(self) -> str:
        """The metric that chooses on val; accuracy where val has nothing to compute the AUC from."""
        val = self.labels("val")
        if val.ndim == 2 and not ((val.min(axis=0) == 0) & (val.max(axis=0) == 1)).any():
            return "accuracy"
        return choosing_metric(self.labels("train"), self.dataset.info.multi_label)

    def labels(self, split: SplitName) -> Labels:
        """The labels of a split, (N,) or (N, L)."""
        if split not in self._labels:  # opening one of many shards reads all of their manifests
            self._labels[split] = np.asarray(self.dataset.split(split).labels)
        return self._labels[split]

    def score(self, candidate: Candidate) -> Scored:
        """Fit on train for every C, keep the best on val (the stronger penalty where two are equal)."""
        x = candidate.features("train", self.train_images)
        y = self.labels("train")[self.train_images]
        classes = 0 if self.dataset.info.multi_label else len(self.dataset.info.class_names)
        labels, (one, other) = self.labels("val"), self.halves
        c_grid, max_iter = self.settings.c_grid, self.settings.max_iter
        grid = list(fit_grid(x, y, classes, c_grid, max_iter, standardise=candidate.standardise, overwrite=True))
        del x
        scored = self._scores(candidate, "val", [probe for _, probe in grid])
        fits = [(c, probe, scores) for (c, probe), scores in zip(grid, scored, strict=True)]
        c, probe, scores = max(fits, key=lambda fit: value_of(self.chosen_by, fit[2], labels))
        half = max((fit[2] for fit in fits), key=lambda scores: value_of(self.chosen_by, scores[one], labels[one]))
        tested = estimate_of(self.chosen_by, half[other], labels[other], self.half_bootstrap)
        chosen = value_of(self.chosen_by, half[one], labels[one])
        return Scored(candidate, c, probe, evaluate(scores, labels, self.bootstraps["val"]), chosen, tested)

    def test(self, scored: Scored) -> Tested:
        """Read test, once, with what was chosen on val."""
        (scores,) = self._scores(scored.candidate, "test", [scored.probe])
        labels = self.labels("test")
        return Tested(scored, evaluate(scores, labels, self.bootstraps["test"]), predicted(scores, labels.ndim == 2))

    def _scores(self, candidate: Candidate, split: SplitName, probes: Sequence[Linear]) -> list[Scores]:
        """What each probe gives on a whole split, (N, K) each: float32 above `EXACT` images, of which there may be many."""
        count, pieces = self.dataset.info.counts[split], candidate.pieces(split, None)
        if count <= EXACT:
            x = gather(pieces, count)
            return [probe.scores(x) for probe in probes]
        found = [np.empty((count, len(probe.bias)), np.float32) for probe in probes]
        start = 0
        for x in pieces:
            for probe, scores in zip(probes, found, strict=True):
                scores[start : start + len(x)] = probe.scores(x)
            start += len(x)
        check_whole(start, count)
        return found

    def best(self, scored: Iterable[Scored], key: Callable[[Candidate], Key]) -> dict[Key, Scored]:
        """For each value of `key` the candidate that is best on val by the choosing metric, the first where two are equal."""
        best: dict[Key, Scored] = {}
        for one in scored:
            name = key(one.candidate)
            if name not in best or one.val[self.chosen_by].value > best[name].val[self.chosen_by].value:
                best[name] = one
        return best


def halves(labels: Labels, seed: int, copies: int = 1) -> tuple[Ints, Ints]:
    """Two halves of the images with labels (N,) or (N, L), drawn at random within each class (or combination of labels).

    The copies of an original (row r is one of original r // copies) stay together: what chooses t has not seen what tests it.
    """
    labels = labels[::copies]
    groups: Ints = np.zeros(len(labels), np.int64)
    for column in labels.reshape(len(labels), -1).T:  # numbers of the combinations so far, in their order
        groups = np.unique(groups * (1 + int(column.max(initial=0))) + column, return_inverse=True)[1]
    order = np.lexsort((np.random.default_rng([seed, len(labels)]).random(len(labels)), groups))
    one, other = (np.sort(half)[:, None] * copies + np.arange(copies) for half in (order[::2], order[1::2]))
    return one.reshape(-1), other.reshape(-1)
