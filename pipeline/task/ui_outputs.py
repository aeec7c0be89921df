"""What Kubeflow's pages show beside each artifact: numbers, the confusion matrix, and pages, all read off the artifact."""

import csv
import shutil
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from pipeline.task.ui_metadata import Metadata, read
from pipeline.task.ui_texts import gate_text, nothing_to_tell_apart, probe_text

DIGITS = 4
"""Of a metric: a person reads them beside each other; the artifact holds them all."""


def show(step: str, name: str, artifact: Path, place: Path) -> Metadata:
    """Write the output `name` of `step` to `place` (a page; a metric has an empty file there) and give its metadata."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    return _SHOWN[step, name](artifact, place)


def _training_metrics(artifact: Path, _: Path) -> Metadata:
    """The last logged losses and gradient norms, and how much shuffling v_t costs."""
    with (artifact / "curve.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    gap = max(read(artifact / "summary.json")["gap"], key=lambda row: row["ratio"])
    numbers = {key: float(value) for key, value in last.items() if value}
    return {**numbers, "largest_gap": gap["ratio"], "largest_gap_t": gap["t"]}


def _probe_metrics(artifact: Path, _: Path) -> Metadata:
    """What decides: DiER on test, its paired gain over raw pixels, and the t that val chose; by the metric that chose it.

    The page sorts by name and shows ten at first, so the names bring them in this order. Lower and upper are 95 % intervals. With
    labels of one class there is nothing to tell apart, and an accuracy of 1 would look like a result.
    """
    metrics = read(artifact / "metrics.json")
    if nothing_to_tell_apart(metrics):
        return {}
    metric, pixels = metrics["chosen_by"], metrics["baselines"].get("pixels")
    shown = _with_interval(metric, metrics["test"][metric])
    if pixels:
        shown |= _with_interval("gain_over_pixels", pixels["difference"][metric])
        shown |= {f"pixels_{metric}": pixels["test"][metric]["value"]}
    shown |= {"accuracy": metrics["test"]["accuracy"]["value"], f"val_{metric}": metrics["val"][metric]["value"], "t": metrics["t"]}
    return {name: value if value is None else round(value, DIGITS) for name, value in sorted(shown.items())}


def _with_interval(name: str, figures: Mapping[str, float | None]) -> Metadata:
    return {name: figures["value"], f"{name}_lower": figures["low"], f"{name}_upper": figures["high"]}


def _confusion(artifact: Path, _: Path) -> Metadata:
    """The confusion matrix on test; for multi-label sets there is none."""
    from kfp import dsl

    from components.reporting.accuracy import confusion_counts

    names = [str(name) for name in read(artifact / "metrics.json")["class_names"]]
    counts = confusion_counts(artifact, len(names))
    if counts is None:
        return {}
    matrix = dsl.ClassificationMetrics(name="confusion", uri="", metadata={})
    matrix.log_confusion_matrix(names, counts.tolist())
    return dict(matrix.metadata)


def _timestep_curve(artifact: Path, place: Path) -> Metadata:
    """Accuracy over t and log-SNR with the baselines, as the report draws it."""
    import pandas as pd

    from components.reporting.accuracy import over_t

    metrics = read(artifact / "metrics.json")
    picture = over_t(pd.read_csv(artifact / "curve.csv"), metrics)
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in [metrics["peak"]["sentence"], *metrics["conclusions"]])
    place.write_text(
        f'<!doctype html><meta charset="utf-8"><title>Linear probes</title><body style="font-family: sans-serif; margin: 1em">'
        f'<img style="max-width: 100%" src="{picture.src}" alt="{escape(picture.alt)}"><ul>{said}</ul></body>\n',
        "utf-8",
    )
    return {}


def _copied(name: str) -> Callable[[Path, Path], Metadata]:
    def copy(artifact: Path, place: Path) -> Metadata:
        shutil.copyfile(artifact / name, place)
        return {}

    return copy


def _written(name: str, text: Callable[[Any], str]) -> Callable[[Path, Path], Metadata]:
    def write(artifact: Path, place: Path) -> Metadata:
        place.write_text(text(read(artifact / name)), "utf-8")
        return {}

    return write


_SHOWN: Mapping[tuple[str, str], Callable[[Path, Path], Metadata]] = {
    ("validate", "data_docs"): _copied("docs/index.html"),
    ("train", "training_metrics"): _training_metrics,
    ("probe", "conclusions"): _written("metrics.json", probe_text),
    ("probe", "confusion"): _confusion,
    ("probe", "probe_metrics"): _probe_metrics,
    ("probe", "timestep_curve"): _timestep_curve,
    ("report", "report_page"): _copied("report.html"),
    ("register", "gate_verdict"): _written("registration.json", gate_text),
}
