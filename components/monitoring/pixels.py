"""What is expected of the pixels of new images: the suite of the validate step, as far as it speaks of images without labels.

A limit leaves room for what chance does to so many images, against so many of the reference: a share or a shift of a small batch
is far from that of the images it was drawn from.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.common.settings import ValidateSettings
from components.monitoring.decision import most, p_of_more, part
from components.probing.reference import MEASURES
from components.validation.expectations import NAMED, Check, Measures, Severity
from components.validation.suite import Outcome, validate
from data.quality.statistics import copies, numbered

Numbers = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]

TIMES = 2.0
"""Where the training images have more of something than validate allows, so many times their share are no warning yet."""
DECIDE = (
    ("blank", "Images are not blank more often than those trained on"),
    ("constant", "Images are not of one grey level more often than those trained on"),
)
SHIFTS = (
    ("brightness", "mean", "New images are as bright as those trained on"),
    ("contrast", "std", "New images have the contrast of those trained on"),
)


def p_values(new: Mapping[str, Numbers], reference: Mapping[str, Numbers]) -> dict[str, float]:
    """Of each share that decides the p of Fisher's test; both are MEASURES, (m,) and (n,)."""
    here, there = _flags(new), _flags(reference)
    return {
        f"{name}_images": p_of_more(int(here[name].sum()), len(here[name]), int(there[name].sum()), len(there[name]))
        for name, _ in DECIDE
    }


def expectations(
    statistics: pa.Table, reference: Mapping[str, Numbers], name_of: Callable[[int], str], alpha: float
) -> list[Outcome]:
    """Hold new images (`data.quality.statistics.SCHEMA`, `name_of` says what is in a row) to the measures of a reference.

    A share that decides fails where its p is at most its part of alpha. A warning comes where a share or shift (in standard
    deviations of the reference) is beyond the default of params.yaml's `validate` section, and beyond chance at alpha by itself;
    copies are none by chance.
    """
    settings = ValidateSettings()
    new = {name: statistics.column(name).to_numpy() for name in MEASURES}
    here, there, p = _flags(new), _flags(reference), p_values(new, reference)
    duplicate = (new["std"] > 0) & copies(numbered(statistics))
    row: dict[str, Any] = {"split": "new"}
    checks, where = [], {}
    for name, says in DECIDE:
        known = f"; of those trained on {int(there[name].sum())} of {len(there[name])}, p = {p[f'{name}_images']:.2g}"
        row[name], where[name] = here[name].mean(), _where(here[name], name_of) + known
        checks.append(_at_most(f"{name}_images", "error", says, name, _share(here[name], there[name], part(alpha))))
    row["saturated"], where["saturated"] = here["saturated"].mean(), _where(here["saturated"], name_of)
    usual = max(settings.max_saturated_share, TIMES * float(there["saturated"].mean()))
    limit = max(usual, _share(here["saturated"], there["saturated"], alpha))
    checks.append(_at_most("saturated_images", "warning", "Few images are saturated", "saturated", limit))
    row["duplicate"], where["duplicate"] = duplicate.mean(), _where(duplicate, name_of)
    checks.append(_at_most("duplicates", "warning", "Few images are copies", "duplicate", settings.max_duplicate_share))
    for name, measure, says in SHIFTS:
        row[name], chance = shift(new[measure], reference[measure], alpha)
        checks.append(_at_most(name, "warning", says, name, max(settings.max_pixel_shift, chance)))
    return validate(Measures(statistics, pd.DataFrame([row]), where, {}, [], []), checks).outcomes


def shift(new: Numbers, reference: Numbers, alpha: float) -> tuple[float, float]:
    """How far the mean of `new` (m,) lies from that of `reference` (n,), and how far at most by chance, in its standard deviations.

    The second is the normal quantile of alpha times the standard error of the difference: images that did not change pass it in
    about that share of batches, also in those of one image if single images are not far from normal.
    """
    from scipy.stats import norm

    spread = float(reference.std())
    scale = max(spread, 1.0)  # at least one grey level, so that equal images do not divide by 0
    error = spread * np.sqrt(1 / len(new) + 1 / len(reference))
    apart = abs(float(new.mean()) - float(reference.mean()))
    return apart / scale, float(norm.isf(alpha / 2)) * error / scale


def _flags(measured: Mapping[str, Numbers]) -> dict[str, Flags]:
    return {
        "blank": measured["max"] == 0,
        "constant": (measured["std"] == 0) & (measured["max"] > 0),
        "saturated": measured["saturated_share"] > ValidateSettings().saturated_pixel_share,
    }


def _share(here: Flags, there: Flags, level: float) -> float:
    """The largest share of the new images that chance allows."""
    return most(len(here), int(there.sum()), len(there), level) / len(here)


def _at_most(name: str, severity: Severity, says: str, column: str, limit: float) -> Check:
    arguments = {"column": column, "max_value": limit}
    return Check(name, severity, says, "splits", round(limit, 6), "ExpectColumnMaxToBeBetween", arguments)


def _where(hits: Flags, name_of: Callable[[int], str]) -> str:
    found = np.flatnonzero(hits)
    shown = ", ".join(map(name_of, found[:NAMED].tolist())) + (", ..." if len(found) > NAMED else "")
    return f"{len(found)} of {len(hits)} do not keep to it ({shown})"
