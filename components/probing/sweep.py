"""The sweep: every candidate fitted on train and scored on val; per representation the best (t, C) reads test once."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from components.common.settings import ProbeSettings
from components.probing.classifier import Array, Floats, Labels, Linear, fit_grid
from components.probing.metrics import Bootstrap, Estimate, correct, evaluate
from components.probing.representations import Candidate
from data.format import Dataset, SplitName


@dataclass(frozen=True)
class Scored:
    """A candidate with its best C on val."""

    candidate: Candidate
    c: float
    probe: Linear
    val: dict[str, Estimate]
    val_correct: Array


@dataclass(frozen=True)
class Tested:
    """The chosen candidate of a representation, on test."""

    scored: Scored
    test: dict[str, Estimate]
    test_correct: Array
    test_scores: Floats


@dataclass
class Sweep:
    """Labels, resamples and settings that every candidate shares."""

    settings: ProbeSettings
    dataset: Dataset
    chosen: npt.NDArray[np.int64] = field(init=False)
    bootstraps: dict[str, Bootstrap] = field(init=False)

    def __post_init__(self) -> None:
        info, settings = self.dataset.info, self.settings
        count = info.counts["train"]
        order = np.random.default_rng(settings.seed).permutation(count)[: settings.train_limit or count]
        self.chosen = np.sort(order)
        self.bootstraps = {s: Bootstrap(info.counts[s], settings.bootstrap, settings.seed) for s in ("val", "test")}

    def labels(self, split: SplitName) -> Labels:
        """The labels of a split, (N,) or (N, L)."""
        return np.asarray(self.dataset.split(split).labels)

    def score(self, candidate: Candidate) -> Scored:
        """Fit on train for every C, keep the best on val (the stronger penalty where two are equal)."""
        x = candidate.features("train")[self.chosen]
        y = self.labels("train")[self.chosen]
        classes = 0 if self.dataset.info.multi_label else len(self.dataset.info.class_names)
        val, labels = candidate.features("val"), self.labels("val")
        best: tuple[float, float, Linear] | None = None
        for c, probe in fit_grid(x, y, classes, self.settings.c_grid, self.settings.max_iter):
            accuracy = correct(probe.scores(val), labels).mean()
            if best is None or accuracy > best[0]:
                best = accuracy, c, probe
        assert best is not None
        scores = best[2].scores(val)
        return Scored(candidate, best[1], best[2], evaluate(scores, labels, self.bootstraps["val"]), correct(scores, labels))

    def test(self, scored: Scored) -> Tested:
        """Read test, once, with what was chosen on val."""
        scores, labels = scored.probe.scores(scored.candidate.features("test")), self.labels("test")
        return Tested(scored, evaluate(scores, labels, self.bootstraps["test"]), correct(scores, labels), scores)


def best_of(scored: Iterable[Scored]) -> dict[str, Scored]:
    """Per representation the candidate with the highest val accuracy, the first where two are equal."""
    best: dict[str, Scored] = {}
    for one in scored:
        name = one.candidate.representation
        if name not in best or one.val["accuracy"].value > best[name].val["accuracy"].value:
            best[name] = one
    return best
