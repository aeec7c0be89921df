"""The gate before the registry: good enough, and no worse than the champion on the same test images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
SEED = 0


@dataclass(frozen=True)
class Predictions:
    """What a version got right: `index` (N,) int64 of the test images, `correct` (N,) float64 in 0 .. 1."""

    index: npt.NDArray[np.int64]
    correct: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Champion:
    """The version that carries the alias champion; None where it does not say."""

    version: int
    dataset: str | None
    predictions: Predictions | None


@dataclass(frozen=True)
class Gate:
    """The verdict and its reasons, one line each: what speaks against a refused model, or everything that was checked."""

    passed: bool
    reasons: list[str]


def decide(
    *,
    validated: bool,
    classes: int,
    accuracy: float,
    min_accuracy: float,
    dataset: str,
    predictions: Predictions,
    champion: Champion | None,
) -> Gate:
    """Judge a model by its test accuracy and its test predictions.

    `dataset` is the fingerprint of what it was made from, `classes` the number of classes (or of labels, where there are several).
    """
    findings = [_validation(validated), _accuracy(accuracy, min_accuracy), _against(dataset, predictions, champion)]
    if classes < 2:
        findings.insert(0, (False, "not judged: the labels name a single class, so any accuracy is empty"))
    refusals = [text for ok, text in findings if not ok]
    return Gate(not refusals, refusals or [text for _, text in findings])


def paired_difference(new: Predictions, old: Predictions) -> tuple[float, float, float]:
    """Mean of (new - old) over the test images, and its 95 % interval by paired bootstrap (seeded).

    Resampling N pairs matters only through how often each distinct difference is drawn, so one multinomial draw over the
    distinct differences (-1, 0, 1 for single labels) is a whole resample: memory does not grow with N.
    """
    values, counts = np.unique(new.correct - old.correct, return_counts=True)
    n = int(counts.sum())
    draws = np.random.default_rng(SEED).multinomial(n, counts / n, size=RESAMPLES)  # (RESAMPLES, distinct)
    low, high = np.quantile(draws @ values / n, [0.025, 0.975])
    return float(values @ counts / n), float(low), float(high)


def _validation(validated: bool) -> tuple[bool, str]:
    return validated, "the data passed validation" if validated else "the data did not pass validation"


def _accuracy(accuracy: float, least: float) -> tuple[bool, str]:
    if accuracy >= least:
        return True, f"test accuracy {accuracy:.4f} reaches register.min_accuracy {least:g}"
    return False, f"test accuracy {accuracy:.4f} is below register.min_accuracy {least:g}"


def _against(dataset: str, new: Predictions, champion: Champion | None) -> tuple[bool, str]:
    if champion is None:
        return True, "no champion to compare with"
    named = f"the champion, version {champion.version}"
    if champion.dataset != dataset:
        return True, f"not comparable with {named}: it was tested on another dataset"
    old = champion.predictions
    if old is None or not np.array_equal(old.index, new.index):
        return False, f"cannot be compared with {named}: its predictions of the same dataset are missing or damaged"
    mean, low, high = paired_difference(new, old)
    figures = f"difference {mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {len(new.index)} test images, paired"
    if high < 0:
        return False, f"worse than {named} ({figures})"
    return True, f"no worse than {named} ({figures})"
