"""The gate before the registry: rules over what is known of a model, each with its finding; the worst finding is the verdict.

A rule is a function in RULES. `refused` keeps a version without an alias. `uncompared` lets it be a candidate, but a person has to
decide whether it becomes champion: what cannot be compared never replaces a champion by itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.common.settings import RegisterSettings
from components.registry.versions import PASSED, REFUSED, UNCOMPARED, VERDICTS
from data.format import MULTI_LABEL

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Predictions:
    """What a version got right: `index` (N,) int64 of the test images, `correct` (N,) float64 in [0, 1]."""

    index: npt.NDArray[np.int64]
    correct: npt.NDArray[np.float64]


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
    findings = [finding for rule in RULES for finding in rule(evidence)]
    worst = max((verdict for verdict, _ in findings), key=VERDICTS.index)
    return Gate(worst, [reason for verdict, reason in findings if worst != REFUSED or verdict == REFUSED])


def _several_classes(evidence: Evidence) -> Iterator[Finding]:
    if len(evidence.metrics["class_names"]) < 2 and evidence.metrics["task"] != MULTI_LABEL:
        yield REFUSED, "not judged: the labels name a single class, so any accuracy is empty"


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


def _no_worse(evidence: Evidence) -> Iterator[Finding]:
    """Non-inferiority: of the paired difference in test accuracy, the 95 % interval lies above -margin.

    What is resampled are originals, where the test images are copies of some (`copies` in metrics.json).
    """
    if not evidence.champions:
        yield PASSED, "no champion to compare with"
        return
    from components.probing.metrics import Bootstrap  # brings scikit-learn, which a version that stands need not wait for

    new, margin, copies = evidence.predictions, evidence.settings.margin, evidence.metrics.get("copies", 1)
    of = f", copies of {len(new.index) // copies}" if copies > 1 else ""
    for champion in evidence.champions:
        old, named = champion.predictions, f"champion version {champion.version}"
        if champion.dataset != evidence.dataset:
            yield UNCOMPARED, f"not comparable with {named}: it was tested on another dataset"
        elif old is None or not np.array_equal(old.index, new.index):
            yield UNCOMPARED, f"not comparable with {named}: its predictions of the same dataset are missing or damaged"
        else:
            found = Bootstrap(len(new.index), RESAMPLES, SEED, copies).mean(new.correct - old.correct)
            figures = (
                f"difference {found.value:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}, "
                f"{len(new.index)} test images{of}, paired; register.margin {margin:g}"
            )
            if found.low >= -margin:
                yield PASSED, f"no worse than {named} ({figures})"
            else:
                yield REFUSED, f"may be worse than {named} ({figures})"


RULES: Sequence[Callable[[Evidence], Iterator[Finding]]] = (_several_classes, _valid_data, _encoder_used, _accurate, _no_worse)
