"""The model card of a version, in Markdown: what it is for, data and licence, figures with intervals, limits, cost, how to load.

After Mitchell et al. 2019, Model Cards for Model Reporting (arXiv:1810.03993). What nobody measured is said to be unknown.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from components.common.formatting import METRIC_NAMES, at_t, gain, measure, percent
from components.probing.baselines import label
from components.registry.class_figures import class_figures
from components.registry.provenance import UNKNOWN, non_commercial
from data.format import MULTI_LABEL, SPLITS, labelled

CARD = "card.md"
DESCRIPTION = 5000
"""Characters of a description that MLflow's database takes (String(5000) in mlflow/store/model_registry/dbmodels/models.py)."""
ROWS = (None, 20, 10, 5, 3)
"""Rows of a table: all of them, or so few that the description fits."""
SCORES = {"kept": "neighbours kept", "effective_rank": "effective rank", "spread": "spread over images"}


@dataclass(frozen=True)
class Facts:
    """All that a card tells."""

    name: str
    """Of the registered model."""
    info: Mapping[str, Any]
    """dataset.json; {} where it is not known."""
    dataset: str
    """The dataset's fingerprint."""
    licence: str
    metrics: Mapping[str, Any]
    summary: Mapping[str, Any]
    verdict: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    curve: Path
    """The probe's curve.csv."""
    right: Path
    """Its predictions.parquet; not read without labels."""
    sampled: str = "none"
    """What of the test images goes along: none, their embeddings, images and embeddings."""
    cost: Mapping[str, str] = field(default_factory=dict)
    """What is known of hardware, time and energy of the training: `hardware`, `time`, `energy`."""

    @property
    def labelled(self) -> bool:
        """Whether there is an accuracy."""
        return labelled(self.metrics["task"], self.metrics["class_names"])

    @cached_property
    def by_class(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of what each class came to."""
        return class_figures(self.right, self.metrics["class_names"], int(self.metrics.get("copies", 1)))

    @property
    def multi_label(self) -> bool:
        """Whether an image carries several yes/no labels."""
        return bool(self.metrics["task"] == MULTI_LABEL)

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json of the networks."""
        return self.settings["config"]


def card(facts: Facts) -> str:
    """The whole card, ending in a newline."""
    return _text(facts, None)


def description(facts: Facts) -> str:
    """The card in as many characters as MLflow's description takes, with shorter tables where need be."""
    for rows in ROWS:
        text = _text(facts, rows)
        if len(text) <= DESCRIPTION:
            return text
    note = f"\n\n(cut short: the whole card is {CARD} among the version's files)\n"
    return text[: DESCRIPTION - len(note)] + note


def _text(facts: Facts, rows: int | None) -> str:
    sections: list[tuple[str, Callable[[Facts, int | None], list[str]]]] = [
        ("Intended use", _use),
        ("Data and licence", _data),
        ("Figures", _figures),
        ("Timestep", _timestep),
        ("Baselines", _baselines),
        ("Limits", _limits),
        ("Cost of the training", _cost),
        ("Load it", _load),
    ]
    lines = [f"# {_plain(facts.name)}: DiER embeddings of {_plain(facts.metrics['dataset'])}", ""]
    if non_commercial(facts.licence):
        lines += [f"**Non-commercial use only**: the licence of the training data is {_plain(facts.licence)}.", ""]
    for title, section in sections:
        lines += [f"## {title}", "", *section(facts, rows), ""]
    return "\n".join(lines)


def _use(facts: Facts, rows: int | None) -> list[str]:
    config = facts.config
    size = f"{config['image_height']} x {config['image_width']} pixels in {'grey' if config['channels'] == 1 else 'colour'}"
    numbers = facts.metrics.get("embed_dim", config["embed_dim"])
    lines = [
        f"Takes images like those of {_plain(facts.metrics['dataset'])}, {size}, and gives an embedding of {numbers} numbers each, "
        "for search, grouping, and classifiers that have few labels. It was trained without labels."
    ]
    if facts.labelled:
        of = "a yes or no for each of" if facts.multi_label else "one of"
        lines.append(f"A linear probe on the embedding says {of} {len(facts.metrics['class_names'])} classes, with probabilities.")
    lines.append(
        "Not tested: images from elsewhere, or made in another way; people, or groups of them, apart; any decision that is made on "
        "what it says. Test it there before it is used there."
    )
    return lines


def _data(facts: Facts, rows: int | None) -> list[str]:
    info, verdict = facts.info, facts.verdict
    counts = info.get("counts", {})
    wrong = [one["name"] for one in verdict.get("expectations", []) if not one["passed"]]
    passed = f"{'passed' if verdict['passed'] else 'failed'}, {verdict['warnings']} warnings"
    told = {
        "set": facts.metrics["dataset"],
        "source": info.get("source", UNKNOWN),
        "licence": facts.licence,
        "task": facts.metrics["task"] if facts.labelled else "none (no labels that tell images apart)",
        "images": ", ".join(f"{split} {counts[split]}" for split in SPLITS if split in counts) or UNKNOWN,
        "validation": passed + (f" ({_few(wrong, rows)})" if wrong else ""),
        "fingerprint": facts.dataset,
        "test images that go along": facts.sampled,
    }
    notes = [f"- {_plain(note)}" for note in info.get("notes", [])[:rows]]
    lines = [*_table(["", ""], [[key, str(value)] for key, value in told.items()]), "", *notes]
    return [*lines, *([""] if notes else []), *_licence(facts.licence)]


def _licence(licence: str) -> list[str]:
    if licence == UNKNOWN:
        return ["The licence of the data is unknown, so whether the model may be used or given away is unknown too."]
    meant = f"The licence, {_plain(licence)}, is that of the data; what it means for a model trained on them is for you to judge."
    if non_commercial(licence):
        return [f"{meant} This card takes the careful view: non-commercial data make a non-commercial model."]
    return [meant]


def _figures(facts: Facts, rows: int | None) -> list[str]:
    test = facts.metrics["test"]
    if not facts.labelled:
        kept = [
            [SCORES.get(name, name), measure(one, "accuracy") if name == "kept" else f"{one['value']:.4g}"]
            for name, one in test.items()
        ]
        chance = facts.metrics.get("chance")
        return [
            "On test images, which were read once; brackets are 95 % bootstrap intervals. There are no labels, so no accuracy:",
            "",
            *_table(["", "value"], kept),
            *([f"\nNeighbours kept by chance: {percent(chance)}."] if chance is not None else []),
        ]
    lines = [
        "On test images, which were read once; brackets are 95 % bootstrap intervals (of originals where images are copies).",
        "",
        *_table(["", "test"], [[METRIC_NAMES[name], measure(one, name)] for name, one in test.items() if name in METRIC_NAMES]),
        "",
    ]
    columns, found = facts.by_class
    lines += _table(columns, found, rows)
    if any("[" in cell and _of_no_width(cell) for row in found for cell in row):
        lines += [
            "",
            "An interval of no width says that all images of a class, or none, are right: where they are few, no more than that.",
        ]
    return lines


def _of_no_width(cell: str) -> bool:
    low, _, high = cell.partition("[")[2].rstrip("]").partition(", ")
    return low == high


def _timestep(facts: Facts, rows: int | None) -> list[str]:
    metrics = facts.metrics
    by = metrics.get("chosen_by", "accuracy")
    metric = by if facts.labelled else "score"
    over_t = _rows_of(facts.curve, metric)
    lines = [f"The embedding is taken at {at_t(metrics)}, chosen on val by {METRIC_NAMES.get(by, 'scores that need no label')}."]
    if sentence := metrics.get("peak", {}).get("sentence"):
        lines.append(_plain(sentence))
    shown = [[row["t"], f"{float(row['log_snr']):.2f}", _curve_figure(row, metric)] for row in over_t]
    name = METRIC_NAMES.get(metric, "score")
    return [*lines, "", *_table(["t", "log-SNR", f"{name} ({over_t[0]['split'] if over_t else 'val'})"], shown, rows)]


def _rows_of(file: Path, metric: str) -> list[dict[str, str]]:
    """DiER's rows of curve.csv over t, of a metric on the split that chose (never test)."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["representation"] == "dier" and row["split"] != "test"]
    return [row for row in rows if row["metric"] == metric and row["t"] and row["value"]]


def _curve_figure(row: Mapping[str, str], metric: str) -> str:
    if metric not in METRIC_NAMES:
        return f"{float(row['value']):.4g}"
    return measure({key: float(row[key]) if row[key] else None for key in ("value", "low", "high")}, metric)


def _baselines(facts: Facts, rows: int | None) -> list[str]:
    known = facts.metrics.get("baselines", {})
    if not known:
        return ["None was probed, so whether it is better than raw pixels is unknown."]
    metric = facts.metrics.get("chosen_by", "accuracy") if facts.labelled else "kept"
    shown = []
    for name, one in known.items():
        figure = measure(one["test"][metric], "accuracy" if metric == "kept" else metric)
        difference = gain(one["difference"][metric], metric) if "difference" in one else "not measured"
        shown.append([label(name), figure, difference])
    lines = _table(
        ["probed in the same way", f"test {METRIC_NAMES.get(metric, SCORES.get(metric, metric))}", "DiER minus it, paired"], shown
    )
    said = facts.metrics.get("conclusions", []) if rows is None else []  # what the table says in figures
    return [*lines, *([""] if said else []), *(f"- {_plain(sentence)}" for sentence in said)]


def _limits(facts: Facts, rows: int | None) -> list[str]:
    metrics, training = facts.metrics, facts.settings.get("train", {})
    lines = [
        f"One training, seed {training.get('seed', UNKNOWN)}: how much figures vary between trainings is not measured here.",
        "The intervals are of the test images alone, all of the same source as those it was trained on.",
        "The embedding is that of its t: embeddings of another version or t are not comparable.",
    ]
    if not facts.labelled:
        lines.append("Whether it tells your classes apart is unknown: that takes labels.")
    if "copies" in metrics:
        lines.append(
            f"Test images are copies of originals, {metrics['copies']} of each: there are fewer independent ones than images."
        )
    if not facts.summary.get("encoder_used", True):
        lines.append("The denoiser does not use the encoder (shuffling v_t raises the loss at no timestep).")
    lines += [_plain(warning) for warning in facts.summary.get("warnings", [])]
    return [f"- {line}" for line in lines]


def _cost(facts: Facts, rows: int | None) -> list[str]:
    summary, training = facts.summary, facts.settings.get("train", {})
    parameters = summary.get("parameters", {})
    batch = training.get("batch_size")
    told = {
        "weights": ", ".join(f"{name} {number:,}" for name, number in parameters.items()) or UNKNOWN,
        "steps": f"{summary['steps']:,}" + (f" of {batch} images" if batch else ""),
        "time": facts.cost.get("time", f"{UNKNOWN} (no rates in MLflow for all of this training)"),
        "hardware": facts.cost.get("hardware", UNKNOWN),
        "energy": facts.cost.get("energy", f"{UNKNOWN} (not measured)"),
    }
    return _table(["", ""], [[key, value] for key, value in told.items()])


def _load(facts: Facts, rows: int | None) -> list[str]:
    config = facts.config
    shape = f"N, {config['image_height']}, {config['image_width']}, {config['channels']}"
    outputs = 'out["embedding"], out["probabilities"]' if facts.labelled else 'out["embedding"]'
    return [
        "```python",
        "import mlflow",
        "",
        f'model = mlflow.pyfunc.load_model("models:/{facts.name}@champion")  # or models:/{facts.name}/VERSION',
        f"out = model.predict(images)  # uint8 ({shape}); {outputs}",
        "```",
        "",
        f"`dier verify {facts.name}/VERSION` checks its files and recomputes embeddings; `dier lineage {facts.name}/VERSION` says "
        "where it comes from. Loading runs the code that the version carries.",
    ]


def _table(header: list[str], rows: list[list[str]], most: int | None = None) -> list[str]:
    """A table in Markdown, of `most` rows at most."""
    cells = [[_plain(cell).replace("|", "\\|") for cell in row] for row in (rows if most is None else rows[:most])]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells)]
    more = len(rows) - len(cells)
    return [*lines, "", f"({more} rows more in {CARD} among the version's files)"] if more else lines


def _few(names: list[str], rows: int | None) -> str:
    most = rows or len(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _plain(text: Any) -> str:
    """Text of people or of data in one line, without markup or links: a licence or class name is shown as it stands."""
    line = " ".join(str(text).split())
    for mark in "\\`*<":
        line = line.replace(mark, "\\" + mark)
    return line.replace("](", "]\\(")
