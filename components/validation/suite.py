"""The suite, run by Great Expectations over the two tables of measures."""

import os
from dataclasses import dataclass
from typing import Any

import pandas as pd

from components.validation.expectations import Check, Measures, Observed, Severity

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read on import: nothing here may call home

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

GX_SEVERITY = {"error": "critical", "warning": "warning"}


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


def validate(measures: Measures, suite: list[Check]) -> Result:
    """Run the suite. Raises RuntimeError where Great Expectations could not evaluate an expectation."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("dataset")
    # Arrow's own columns: a million rows are not copied
    frames = {"images": measures.images.to_pandas(types_mapper=pd.ArrowDtype), "splits": measures.splits}
    outcomes, reports = {}, {}
    for table, frame in frames.items():
        chosen = [check for check in suite if check.table == table]
        expectations = gx.ExpectationSuite(f"{table} of the dataset")
        for check in chosen:
            make = getattr(gxe, check.expectation)
            known: dict[str, Any] = {
                "severity": GX_SEVERITY[check.severity],
                "description": check.says,
                "meta": {"name": check.name},
            }
            expectations.add_expectation(make(**check.arguments, **known))
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
    observed, column = result.result.get("observed_value"), check.arguments.get("column", "")
    if observed is None and column:
        observed = ", ".join(str(value) for value in frame[column].unique())
    elif isinstance(observed, list):
        observed = f"{len(observed)} columns"
    elif not isinstance(observed, int):
        observed = round(float(observed), 6)
    found = where.get(column, "")
    cure = f"; the limit is {check.setting}" if check.setting else ""
    message = check.says if result.success else f"{check.says}, but {found or f'it is {observed}'}{cure}"
    return Outcome(check.name, check.severity, bool(result.success), observed, check.limit, message)
