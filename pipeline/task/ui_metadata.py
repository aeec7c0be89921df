"""What Kubeflow's pages show of each step: metadata of its artifact, numbers, and HTML. Read off the artifact that was made."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

Metadata = dict[str, Any]


def describe(step: str, artifact: Path) -> Metadata:
    """Metadata of the artifact of `step`: a few plain values that people search and compare by."""
    return _DESCRIBED[step](artifact) if step in _DESCRIBED else {}


def show(step: str, name: str, artifact: Path, place: Path) -> Metadata:
    """Write the output `name` of `step` to `place` (a page; a metric has an empty file there) and give its metadata."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    return _SHOWN[step, name](artifact, place)


def _json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def _dataset(artifact: Path) -> Metadata:
    facts = _json(artifact / "dataset.json")
    return {key: facts[key] for key in ("name", "source", "licence", "task", "image_shape", "counts")}


def _verdict(artifact: Path) -> Metadata:
    verdict = _json(artifact / "verdict.json")
    failed = [check["name"] for check in verdict["expectations"] if not check["passed"]]
    return {"passed": verdict["passed"], "warnings": verdict["warnings"], "failed": failed}


def _model(artifact: Path) -> Metadata:
    summary = _json(artifact / "summary.json")
    return {"framework": "pytorch", **{key: summary[key] for key in ("steps", "parameters", "training_key")}}


def _embeddings(artifact: Path) -> Metadata:
    facts = _json(artifact / "embeddings.json")
    return {key: facts[key] for key in ("timesteps", "splits", "dtype", "embed_dim", "counts")}


def _probe(artifact: Path) -> Metadata:
    metrics = _json(artifact / "metrics.json")
    return {key: metrics[key] for key in ("dataset", "t", "c", "conclusions")}


def _registration(artifact: Path) -> Metadata:
    made = _json(artifact / "registration.json")
    return {key: made[key] for key in ("name", "version", "run_id", "gate", "aliases")}


def _training_metrics(artifact: Path, _: Path) -> Metadata:
    """The last logged losses and gradient norms, and how much shuffling v_t costs."""
    with (artifact / "curve.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    gap = max(_json(artifact / "summary.json")["gap"], key=lambda row: row["ratio"])
    numbers = {key: float(value) for key, value in last.items() if value}
    return {**numbers, "largest_gap": gap["ratio"], "largest_gap_t": gap["t"]}


def _probe_metrics(artifact: Path, _: Path) -> Metadata:
    """DiER at the t chosen on val, and each baseline at its best, on test."""
    metrics = _json(artifact / "metrics.json")
    shown: Metadata = {"t": metrics["t"], "log_snr": metrics["log_snr"], "val_accuracy": metrics["val"]["accuracy"]["value"]}
    for name, found in metrics["test"].items():
        shown |= {f"test_{name}": found["value"], f"test_{name}_low": found["low"], f"test_{name}_high": found["high"]}
    return shown | {f"test_accuracy_{name}": found["test"]["accuracy"]["value"] for name, found in metrics["baselines"].items()}


def _confusion(artifact: Path, _: Path) -> Metadata:
    """The confusion matrix on test; for multi-label sets there is none."""
    from kfp import dsl

    from components.reporting.accuracy import confusion_counts

    names = [str(name) for name in _json(artifact / "metrics.json")["class_names"]]
    counts = confusion_counts(artifact, len(names))
    if counts is None:
        return {}
    matrix = dsl.ClassificationMetrics(name="confusion", uri="", metadata={})
    matrix.log_confusion_matrix(names, counts.tolist())
    return dict(matrix.metadata)


def _curve_page(artifact: Path, place: Path) -> Metadata:
    """Accuracy over t and log-SNR with the baselines, as the report draws it."""
    import pandas as pd

    from components.reporting.accuracy import over_t

    metrics = _json(artifact / "metrics.json")
    picture = over_t(pd.read_csv(artifact / "curve.csv"), metrics)
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in metrics["conclusions"])
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


_DESCRIBED: Mapping[str, Callable[[Path], Metadata]] = {
    "prepare": _dataset,
    "validate": _verdict,
    "train": _model,
    "embed": _embeddings,
    "embed-join": _embeddings,
    "probe": _probe,
    "register": _registration,
}
_SHOWN: Mapping[tuple[str, str], Callable[[Path, Path], Metadata]] = {
    ("validate", "page"): _copied("docs/index.html"),
    ("train", "metrics"): _training_metrics,
    ("probe", "metrics"): _probe_metrics,
    ("probe", "confusion"): _confusion,
    ("probe", "page"): _curve_page,
    ("report", "page"): _copied("report.html"),
}
