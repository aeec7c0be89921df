"""What is expected of the pixels of new images: the suite of the validate step, as far as it speaks of images without labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.common.settings import ValidateSettings
from components.validation.expectations import NAMED, Check, Measures, Severity
from components.validation.suite import Outcome, validate
from data.quality.statistics import copies, numbered

Numbers = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]

TIMES = 2.0
"""Where the training images have more of something than validate allows by itself, new ones may have so many times that share."""
EXPECTED: tuple[tuple[str, Severity, str, str], ...] = (
    ("blank", "error", "Few images are blank", "max_blank_share"),
    ("constant", "error", "Few images are of one grey level", "max_constant_share"),
    ("saturated", "warning", "Few images are saturated", "max_saturated_share"),
)
SHIFTS = (
    ("brightness", "mean", "New images are as bright as those trained on"),
    ("contrast", "std", "New images have the contrast of those trained on"),
)


def expectations(statistics: pa.Table, reference: Mapping[str, Numbers], names: Sequence[str]) -> list[Outcome]:
    """Hold new images (`data.quality.statistics.SCHEMA`, `names` says which each is) to the measures of a reference.

    Limits are the defaults of params.yaml's `validate` section; shifts are in standard deviations of the reference.
    """
    settings = ValidateSettings()
    new = {name: statistics.column(name).to_numpy() for name in ("mean", "std", "max", "saturated_share")}
    here, there = _flags(new, settings), _flags(reference, settings)
    duplicate = (new["std"] > 0) & copies(numbered(statistics))
    row: dict[str, Any] = {"split": "new"}
    checks, where = [], {}
    for name, severity, says, setting in EXPECTED:
        limit = max(float(getattr(settings, setting)), TIMES * float(there[name].mean()))
        row[name], where[name] = here[name].mean(), _where(here[name], names)
        checks.append(_at_most(f"{name}_images", severity, says, name, limit))
    row["duplicate"], where["duplicate"] = duplicate.mean(), _where(duplicate, names)
    checks.append(_at_most("duplicates", "warning", "Few images are copies", "duplicate", settings.max_duplicate_share))
    for name, measure, says in SHIFTS:
        scale = max(float(reference[measure].std()), 1.0)
        row[name] = abs(float(new[measure].mean()) - float(reference[measure].mean())) / scale
        checks.append(_at_most(name, "warning", says, name, settings.max_pixel_shift))
    return validate(Measures(statistics, pd.DataFrame([row]), where, {}, [], []), checks).outcomes


def _flags(measured: Mapping[str, Numbers], settings: ValidateSettings) -> dict[str, Flags]:
    return {
        "blank": measured["max"] == 0,
        "constant": (measured["std"] == 0) & (measured["max"] > 0),
        "saturated": measured["saturated_share"] > settings.saturated_pixel_share,
    }


def _at_most(name: str, severity: Severity, says: str, column: str, limit: float) -> Check:
    arguments = {"column": column, "max_value": limit}
    return Check(name, severity, says, "splits", round(limit, 6), "ExpectColumnMaxToBeBetween", arguments)


def _where(hits: Flags, names: Sequence[str]) -> str:
    found = np.flatnonzero(hits)
    shown = ", ".join(names[row] for row in found[:NAMED]) + (", ..." if len(found) > NAMED else "")
    return f"{len(found)} of {len(hits)} do not keep to it ({shown})"
