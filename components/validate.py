"""validate: hold a dataset to a suite of named expectations, and write down what was found.

The verdict is written whatever it says; only then does an expectation of severity `error` that failed end the step.
"""

from dataclasses import asdict
from pathlib import Path

from components.common import artifact
from components.common.gates import check_verdict
from components.common.settings import ValidateSettings
from components.validation import data_docs, pictures
from components.validation.expectations import EARLIER, Measures, checks, measure
from components.validation.suite import validate
from data.format import open_dataset
from data.quality import statistics

MAX_PAIRS = 200
"""Near-duplicates listed in verdict.json."""


def run(validate_settings: ValidateSettings, dataset: Path, out: Path) -> None:
    """Write the verdict artifact. Raises DataError when the dataset breaks an expectation of severity error."""
    source = artifact.read(dataset, "dataset")
    images = open_dataset(dataset)
    measures = measure(images, validate_settings)
    result = validate(measures, checks(images.info, validate_settings))
    failed = [outcome for outcome in result.outcomes if not outcome.passed]
    errors = [outcome for outcome in failed if outcome.severity == "error"]
    with artifact.create(out, "verdict", {"dataset": source.fingerprint}) as folder:
        statistics.write(folder / "statistics.parquet", measures.images)
        artifact.write_json(
            folder / "verdict.json",
            {
                "passed": not errors,
                "warnings": len(failed) - len(errors),
                "expectations": [asdict(outcome) for outcome in result.outcomes],
                **({"notes": measures.notes} if measures.notes else {}),
                "near_duplicates": _near_duplicates(measures),
                "pairs": [asdict(pair) for pair in measures.pairs[:MAX_PAIRS]],
            },
        )
        shown = pictures.pairs(images, measures.pairs)
        if shown:
            pictures.montage(shown).save(folder / "pairs.png")
        (folder / "docs").mkdir()
        (folder / "docs" / "index.html").write_text(data_docs.page(images.info, measures, result, shown), "utf-8")
    check_verdict(out)


def _near_duplicates(measures: Measures) -> dict[str, dict[str, float]]:
    counts = {name: sum(pair.split == name for pair in measures.pairs) for name in EARLIER}
    sizes = measures.splits.set_index("split")["images"]
    return {name: {"count": count, "share": round(count / int(sizes[name]), 6)} for name, count in counts.items()}
