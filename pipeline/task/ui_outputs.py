"""What Kubeflow's pages show beside each artifact: numbers, the confusion matrix, and pages, all read off the artifact."""

import csv
import shutil
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from data.format import labelled
from pipeline.task.ui_metadata import Metadata, read
from pipeline.task.ui_texts import gate_text, probe_text

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
    labels that tell nothing apart there is no accuracy: the neighbours that are kept, and how rich the embeddings are.
    """
    metrics = read(artifact / "metrics.json")
    metric, pixels = metrics["chosen_by"], metrics["baselines"].get("pixels")
    if not labelled(metrics["task"], metrics["class_names"]):
        shown = _with_interval("neighbours_kept", metrics["test"]["kept"]) | {"t": metrics["t"]}
        shown |= {name: metrics["test"][name]["value"] for name in ("effective_rank", "spread")}
        if pixels:
            shown |= {"neighbours_kept_by_pixels": pixels["test"]["kept"]["value"]}
        return _rounded(shown)
    shown = _with_interval(metric, metrics["test"][metric])
    if pixels:
        shown |= _with_interval("gain_over_pixels", pixels["difference"][metric])
        shown |= {f"pixels_{metric}": pixels["test"][metric]["value"]}
    shown |= {"accuracy": metrics["test"]["accuracy"]["value"], f"val_{metric}": metrics["val"][metric]["value"], "t": metrics["t"]}
    return _rounded(shown)


def _rounded(shown: Metadata) -> Metadata:
    return {name: value if value is None else round(value, DIGITS) for name, value in sorted(shown.items())}


def _with_interval(name: str, figures: Mapping[str, float | None]) -> Metadata:
    return {name: figures["value"], f"{name}_lower": figures["low"], f"{name}_upper": figures["high"]}


def _confusion(artifact: Path, _: Path) -> Metadata:
    """The confusion matrix on test; for multi-label sets, and where the labels tell nothing apart, there is none."""
    from kfp import dsl

    from components.reporting.accuracy import confusion_counts

    metrics = read(artifact / "metrics.json")
    names = [str(name) for name in metrics["class_names"]]
    if not labelled(metrics["task"], names):
        return {}
    counts = confusion_counts(artifact, len(names))
    if counts is None:
        return {}
    matrix = dsl.ClassificationMetrics(name="confusion", uri="", metadata={})
    matrix.log_confusion_matrix(names, counts.tolist())
    return dict(matrix.metadata)


def _timestep_curve(artifact: Path, place: Path) -> Metadata:
    """Accuracy over t and log-SNR with the baselines or, without labels, the scores over t, as the report draws it."""
    import pandas as pd

    from components.reporting import accuracy, unlabelled

    metrics = read(artifact / "metrics.json")
    drawn = accuracy.over_t if labelled(metrics["task"], metrics["class_names"]) else unlabelled.over_t
    picture = drawn(pd.read_csv(artifact / "curve.csv"), metrics)
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
