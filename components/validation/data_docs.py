"""Data Docs: one page that opens without a network and holds no times or names, so that equal runs give equal bytes.

Great Expectations' own page carries run ids and times, and loads its looks from the network. So its sections are rendered by
its own renderers, its reports stripped of their meta first, and stand inside a page of ours with a style sheet of ours.
"""

from typing import Any

from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaSectionView
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.validation import pictures
from components.validation.expectations import Measures
from components.validation.pictures import ShownPair
from components.validation.suite import Outcome, Result
from data.format import SPLITS, DatasetInfo

CLASSES = 40
"""Classes drawn in the picture of the balance."""


def page(info: DatasetInfo, measures: Measures, result: Result, shown: list[ShownPair]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("components.validation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = measures.splits.to_dict("records")
    return environment.get_template("data_docs.html.j2").render(
        info=info,
        splits=SPLITS,
        outcomes=sorted(result.outcomes, key=_urgency),
        errors=[outcome for outcome in result.outcomes if _urgency(outcome) == 0],
        warnings=[outcome for outcome in result.outcomes if _urgency(outcome) == 1],
        shown=shown,
        pairs=len(measures.pairs),
        notes=measures.notes,
        classes=_balance(info, measures),
        hidden=max(0, len(info.class_names) - CLASSES),
        histograms={
            "Brightness (mean grey level)": pictures.histograms(measures, "mean"),
            "Contrast (standard deviation)": pictures.histograms(measures, "std"),
        },
        table=[[_cell(str(column), value) for column, value in row.items()] for row in rows],
        columns=[str(column).removesuffix("_share").replace("_", " ") for column in measures.splits],
        reports={name: Markup(_rendered(report)) for name, report in result.reports.items()},  # noqa: S704 - see _rendered
    )


def _urgency(outcome: Outcome) -> int:
    return 2 if outcome.passed else ("error", "warning").index(outcome.severity)


def _cell(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value != value:
        return ""
    return f"{100 * value:.2f} %" if column.endswith("_share") else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _balance(info: DatasetInfo, measures: Measures) -> list[dict[str, Any]]:
    tallest = max(max(shares) for shares in measures.classes.values()) or 1.0
    return [
        {"name": name, "bars": [(split, shares[i], 100 * shares[i] / tallest) for split, shares in measures.classes.items()]}
        for i, name in enumerate(info.class_names[:CLASSES])
    ]


def _rendered(report: ExpectationSuiteValidationResult) -> str:
    """Great Expectations' own tables of a report, as HTML, without its overview of versions and times.

    Its templates escape the values of an expectation's settings, but neither descriptions nor what was observed. Here these are
    sentences of the suite, numbers, shapes and types: no text that comes with the data, such as class names, is in the two tables.
    """
    report.meta = {}
    results: list[Any] = report.results
    for result in results:
        result.expectation_config.kwargs.pop("batch_id", None)
        observed = result.result.get("observed_value")
        if hasattr(observed, "item"):
            result.result["observed_value"] = observed.item()  # GX 1.24 cannot render the numbers of numpy 2
    sections = ValidationResultsPageRenderer().render(report).sections[1:]
    view: Any = DefaultJinjaSectionView()
    return "\n".join(
        view.render({"section": section.to_json_dict(), "section_loop": {"index": i}}) for i, section in enumerate(sections, 1)
    )
