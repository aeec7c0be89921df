"""The suite: named expectations with a severity, run by Great Expectations over the two tables of measures."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from components.common.settings import ValidateSettings
from components.validation.measures import Measures
from data.format import DatasetInfo
from data.quality.statistics import SCHEMA

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read on import: nothing here may call home

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

Severity = Literal["error", "warning"]
Observed = float | int | str
GX_SEVERITY = {"error": "critical", "warning": "warning"}


@dataclass(frozen=True)
class Check:
    """One named expectation."""

    name: str
    severity: Severity
    says: str
    """What is expected, as a sentence for people."""
    table: Literal["images", "splits"]
    limit: Observed
    setting: str | None
    """The setting that holds the limit."""
    make: Callable[..., Any]
    """Makes the Great Expectations expectation, given severity, description and meta."""
    column: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How one expectation ended; an entry of `expectations` in verdict.json."""

    name: str
    severity: Severity
    passed: bool
    observed: Observed
    limit: Observed
    message: str


@dataclass(frozen=True)
class Result:
    """The outcomes, and what Great Expectations itself reported for each table."""

    outcomes: list[Outcome]
    reports: dict[str, ExpectationSuiteValidationResult]


def checks(info: DatasetInfo, settings: ValidateSettings) -> list[Check]:
    """The suite for a dataset, in the order of the docs."""
    labels = f"uint8 (N, {len(info.class_names)})" if info.multi_label else "int64 (N)"
    shape = " x ".join(str(size) for size in info.image_shape)

    def at_most(
        name: str, severity: Severity, column: str, says: str, limit: float | None = None, setting: str | None = None
    ) -> Check:
        bound = float(getattr(settings, setting)) if setting else float(limit or 0)
        return Check(
            name,
            severity,
            says,
            "splits",
            bound,
            f"validate.{setting}" if setting else None,
            lambda **more: gxe.ExpectColumnMaxToBeBetween(column=column, max_value=bound, **more),
            column,
        )

    def one_of(name: str, column: str, says: str, *allowed: str | int) -> Check:
        return Check(
            name,
            "error",
            says,
            "splits",
            " or ".join(str(value) for value in allowed),
            None,
            lambda **more: gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(allowed), **more),
            column,
        )

    def table(name: str, says: str, limit: Observed, make: Callable[..., Any]) -> Check:
        return Check(name, "error", says, "images", limit, None, make)

    total = sum(info.counts.values())
    return [
        table(
            "statistics_schema",
            "The statistics have the agreed columns",
            f"{len(SCHEMA.names)} columns",
            lambda **more: gxe.ExpectTableColumnsToMatchOrderedList(column_list=SCHEMA.names, **more),
        ),
        table(
            "one_row_an_image",
            "Every image that dataset.json counts has statistics",
            total,
            lambda **more: gxe.ExpectTableRowCountToEqual(value=total, **more),
        ),
        one_of("image_type", "image_type", "Images are bytes", "uint8"),
        one_of("image_shape", "image_shape", "Images have the height, width and channels of dataset.json", shape),
        one_of("channels", "channels", "Images are grey or RGB", 1, 3),
        one_of("label_format", "label_format", "Labels have the type and shape that the task asks for", labels),
        at_most("labels_in_range", "error", "bad_label_share", "Every label is a whole number that names a class"),
        at_most("values_finite", "error", "not_finite_share", "Every statistic of an image is a finite number"),
        at_most("classes_in_train", "error", "missing_in_train", "Every class has images in train"),
        at_most("classes_in_val_and_test", "warning", "missing_in_val_or_test", "Every class has images in val and in test"),
        at_most("blank_images", "error", "blank_share", "Few images are blank", setting="max_blank_share"),
        at_most("constant_images", "error", "constant_share", "Few images are of one grey level", setting="max_constant_share"),
        at_most("saturated_images", "warning", "saturated_share", "Few images are saturated", setting="max_saturated_share"),
        at_most("duplicates", "warning", "duplicate_share", "Few images are copies in a split", setting="max_duplicate_share"),
        at_most("leaks", "error", "leak_share", "Few images of val or test stand in another split", setting="max_leak_share"),
        at_most(
            "near_duplicates",
            "error",
            "near_duplicate_share",
            "Val and test are not made of near-duplicates of other splits",
            setting="max_near_duplicate_share",
        ),
        at_most(
            "near_duplicates_rare",
            "warning",
            "near_duplicate_share",
            "Near-duplicates across splits are rare",
            setting="warn_near_duplicate_share",
        ),
        at_most("class_balance", "warning", "class_shift", "Val and test have train's class balance", setting="max_class_shift"),
        at_most("brightness", "warning", "brightness_shift", "Val and test are as bright as train", setting="max_pixel_shift"),
        at_most("contrast", "warning", "contrast_shift", "Val and test have train's contrast", setting="max_pixel_shift"),
    ]


def validate(measures: Measures, suite: list[Check]) -> Result:
    """Run the suite. Raises RuntimeError where Great Expectations could not evaluate an expectation."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("dataset")
    frames = {"images": measures.images.to_pandas(), "splits": measures.splits}
    outcomes, reports = {}, {}
    for table, frame in frames.items():
        chosen = [check for check in suite if check.table == table]
        expectations = gx.ExpectationSuite(f"{table} of the dataset")
        for check in chosen:
            severity = GX_SEVERITY[check.severity]
            expectations.add_expectation(check.make(severity=severity, description=check.says, meta={"name": check.name}))
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        reports[table] = report = batch.validate(expectations)
        results: list[Any] = report.results
        for result in results:
            name = result.expectation_config.meta["name"]
            check = next(check for check in chosen if check.name == name)
            outcomes[name] = _outcome(check, result, frame, measures.where)
    return Result([outcomes[check.name] for check in suite], reports)


def _outcome(check: Check, result: Any, frame: pd.DataFrame, where: dict[str, str]) -> Outcome:
    if result.exception_info.get("raised_exception", True):
        raise RuntimeError(f"the expectation {check.name} could not be evaluated: {result.exception_info}")
    observed = result.result.get("observed_value")
    if observed is None and check.column is not None:
        observed = ", ".join(str(value) for value in frame[check.column].unique())
    elif isinstance(observed, list):
        observed = f"{len(observed)} columns"
    elif not isinstance(observed, int):
        observed = round(float(observed), 6)
    found = where.get(check.column or "", "")
    cure = f"; the limit is {check.setting}" if check.setting else ""
    message = check.says if result.success else f"{check.says}, but {found or f'it is {observed}'}{cure}"
    return Outcome(check.name, check.severity, bool(result.success), observed, check.limit, message)
