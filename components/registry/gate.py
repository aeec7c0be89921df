"""The gate before the registry: rules over what is known of a model, each with its finding; the worst finding is the verdict.

A rule is a function in RULES. `refused` keeps a version without an alias. `uncompared` lets it be a candidate, but a person has to
decide whether it becomes champion: what cannot be compared never replaces a champion by itself. Where the labels tell nothing apart
there is no accuracy: UNLABELLED_RULES ask what can be known without one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.common.settings import RegisterSettings
from components.registry.versions import PASSED, REFUSED, UNCOMPARED, VERDICTS
from data.format import labelled

RESAMPLES = 2000
LEAST_SPREAD = 0.01
"""Standard deviation of embeddings over images, in units of their size: below this they are one and the same. An untrained encoder
has 0.1 or more."""
SEED = 0


@dataclass(frozen=True)
class Predictions:
    """What a version got right: `index` (N,) int64 of the test images, `correct` (N,) float64 in [0, 1].

    Where the labels tell nothing apart: the share of its neighbours that each image keeps. `measure` says how that was measured; it
    is empty for predictions.
    """

    index: npt.NDArray[np.int64]
    correct: npt.NDArray[np.float64]
    measure: str = ""


@dataclass(frozen=True)
class Champion:
    """The champion, or an earlier one; None where the registry does not say."""

    version: int
    dataset: str | None
    predictions: Predictions | None


@dataclass(frozen=True)
class Evidence:
    """What a model is judged by: the settings, documents of its artifacts, its test predictions, and whom to compare it with."""

    settings: RegisterSettings
    verdict: Mapping[str, Any]
    """verdict.json of the data."""
    summary: Mapping[str, Any]
    """summary.json of the training."""
    metrics: Mapping[str, Any]
    """metrics.json of the probe."""
    dataset: str
    """Fingerprint of the dataset artifact."""
    predictions: Predictions
    champions: Sequence[Champion] = ()


@dataclass(frozen=True)
class Gate:
    """The verdict and its reasons, one line each: what speaks against a refused model, or everything that was checked."""

    verdict: str
    reasons: list[str]

    @property
    def passed(self) -> bool:
        """Whether the version may carry an alias."""
        return self.verdict != REFUSED


Finding = tuple[str, str]
"""One of VERDICTS, and the sentence that says why."""


def decide(evidence: Evidence) -> Gate:
    """Judge a model by every rule."""
    told = labelled(evidence.metrics["task"], evidence.metrics["class_names"])
    return _worst([finding for rule in (RULES if told else UNLABELLED_RULES) for finding in rule(evidence)])


def _worst(findings: Sequence[Finding]) -> Gate:
    worst = max((verdict for verdict, _ in findings), key=VERDICTS.index)
    return Gate(worst, [reason for verdict, reason in findings if worst != REFUSED or verdict == REFUSED])


def _valid_data(evidence: Evidence) -> Iterator[Finding]:
    yield (PASSED, "the data passed validation") if evidence.verdict["passed"] else (REFUSED, "the data did not pass validation")


def _encoder_used(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.summary.get("encoder_used", True):
        yield REFUSED, "the denoiser does not use the encoder: shuffling v_t over the batch raises the loss at no timestep"


def _accurate(evidence: Evidence) -> Iterator[Finding]:
    accuracy, least = evidence.metrics["test"]["accuracy"]["value"], evidence.settings.min_accuracy
    if accuracy >= least:
        yield PASSED, f"test accuracy {accuracy:.4f} reaches register.min_accuracy {least:g}"
    else:
        yield REFUSED, f"test accuracy {accuracy:.4f} is below register.min_accuracy {least:g}"


def _embedding_used(evidence: Evidence) -> Iterator[Finding]:
    """As `_encoder_used`, and how much it is used: without an accuracy nothing else tells that the encoder learnt something."""
    yield from _encoder_used(evidence)
    gap = max(evidence.summary.get("gap", ()), key=lambda row: row["ratio"], default=None)
    if gap is not None and evidence.summary.get("encoder_used", True):
        yield PASSED, f"v_t is used: shuffling it over the batch raises the loss up to {gap['ratio']:.4g} times (t = {gap['t']})"


def _not_collapsed(evidence: Evidence) -> Iterator[Finding]:
    tested, least = evidence.metrics["test"], evidence.settings.min_rank
    rank, spread = tested["effective_rank"]["value"], tested["spread"]["value"]
    if spread < LEAST_SPREAD:
        yield REFUSED, f"collapsed: test embeddings differ by {spread:.2g} of their size, less than {LEAST_SPREAD:g}"
    elif rank < least:
        yield REFUSED, f"collapsed: the effective rank of the test embeddings, {rank:.2f}, is below register.min_rank {least:g}"
    else:
        yield PASSED, f"not collapsed: the effective rank of the test embeddings, {rank:.2f}, reaches register.min_rank {least:g}"


def _steady(evidence: Evidence) -> Iterator[Finding]:
    """Chance may be more than register.min_kept where there are few training images to be a neighbour."""
    kept, least, chance = evidence.metrics["test"]["kept"], evidence.settings.min_kept, evidence.metrics["chance"]
    figures = f"{kept['value']:.4f} of their neighbours, 95 % interval {kept['low']:.4f} to {kept['high']:.4f}"
    bound = f"register.min_kept {least:g}" if least >= chance else f"chance, {chance:g}"
    if kept["low"] > max(least, chance):
        yield PASSED, f"under mild views test images keep {figures}, above {bound}"
    else:
        yield REFUSED, f"under mild views test images keep {figures}, not above {bound}"


def _no_worse(evidence: Evidence) -> Iterator[Finding]:
    """Non-inferiority to every champion given; `copies` are in metrics.json."""
    copies = evidence.metrics.get("copies", 1)
    return _compare(evidence.predictions, evidence.dataset, evidence.champions, evidence.settings.margin, copies)


def compare(new: Predictions | None, dataset: str | None, champions: Sequence[Champion], margin: float, copies: int) -> Gate:
    """The last rule alone, for a version that was judged before beside another champion. `new` is None where it is missing."""
    return _worst(list(_compare(new, dataset, champions, margin, copies)))


def _compare(
    new: Predictions | None, dataset: str | None, champions: Sequence[Champion], margin: float, copies: int
) -> Iterator[Finding]:
    """Of the paired difference in test accuracy, or in neighbours kept, the 95 % interval has to lie above -margin.

    What is resampled are originals, where the test images are so many copies of some.
    """
    if not champions:
        yield PASSED, "no champion to compare with"
        return
    from components.probing.metrics import Bootstrap  # brings scikit-learn, which a version that stands need not wait for

    for champion in champions:
        old, named = champion.predictions, f"champion version {champion.version}"
        if champion.dataset != dataset:
            yield UNCOMPARED, f"not comparable with {named}: it was tested on another dataset"
        elif new is None:
            yield UNCOMPARED, f"not comparable with {named}: its own predictions are missing or damaged"
        elif old is not None and old.measure != new.measure:
            yield UNCOMPARED, f"not comparable with {named}: its neighbours were counted in another way ({old.measure})"
        elif old is None or not np.array_equal(old.index, new.index):
            yield UNCOMPARED, f"not comparable with {named}: its predictions of the same dataset are missing or damaged"
        else:
            found = Bootstrap(len(new.index), RESAMPLES, SEED, copies).mean(new.correct - old.correct)
            of = f", copies of {len(new.index) // copies}" if copies > 1 else ""
            figures = (
                f"difference {found.value:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}, "
                f"{len(new.index)} test images{of}, paired; register.margin {margin:g}"
            )
            if found.low >= -margin:
                yield PASSED, f"no worse than {named} ({figures})"
            else:
                yield REFUSED, f"may be worse than {named} ({figures})"


RULES: Sequence[Callable[[Evidence], Iterator[Finding]]] = (_valid_data, _encoder_used, _accurate, _no_worse)
UNLABELLED_RULES: Sequence[Callable[[Evidence], Iterator[Finding]]] = (
    _valid_data,
    _embedding_used,
    _not_collapsed,
    _steady,
    _no_worse,
)
