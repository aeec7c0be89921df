"""What the last run found, as one screen: the curve, the baselines, the gate, the version, and what to type next."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.common.errors import ArtifactError
from components.common.formatting import METRIC_NAMES, at_t, measure, points_with_interval, with_interval
from data.format import labelled

COMPUTE = ("train", "embed", "probe")
HOW = "t and C are chosen on val; test is read once; brackets are 95 % bootstrap intervals"


def summary(artifacts: Path, timings: str | None) -> str:
    """The summary of the artifacts under `artifacts`. Raises ArtifactError where a step has not run."""
    metrics = _json(artifacts / "probe" / "metrics.json")
    registration = _json(artifacts / "registration" / "registration.json")
    curve = artifacts / "probe" / "curve.csv"
    if labelled(metrics["task"], metrics["class_names"]):
        parts = [f"{headline(metrics)}\n({HOW})", _curve(curve, metrics), _baselines(metrics)]
    else:
        parts = [headline(metrics), _scores(curve, metrics)]
    parts.append("\n".join([metrics["peak"]["sentence"], *metrics["conclusions"]]))
    parts.append(_registry(registration))
    if timings and Path(timings).is_file():
        parts.append(_times(Path(timings)))
    report = artifacts / "report" / "report.html"
    name = registration["name"]
    parts.append(
        f"report        {report}\n"
        f"next          open the report; dier models {name}; dier promote {name}; dvc exp run -S train.steps=6000\n"
        f"MLflow's UI   mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1"
    )
    return "\n\n".join(parts)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {file}: run dvc repro first ({error})") from error


def headline(metrics: Mapping[str, Any], metric: str = "accuracy") -> str:
    """What the probe found, in one line."""
    if not labelled(metrics["task"], metrics["class_names"]):
        kept = with_interval(metrics["test"]["kept"])
        return f"{metrics['dataset']}: no labels; at {at_t(metrics)} a mild view of a test image keeps {kept} of its neighbours"
    found = measure(metrics["test"][metric], metric)
    return f"{metrics['dataset']}: DiER at {at_t(metrics)} gives a linear-probe {METRIC_NAMES[metric]} of {found} on test"


def _curve(file: Path, metrics: dict[str, Any]) -> str:
    """Val accuracy over t as bars between the lowest and the highest value."""
    rows = _rows(file, "accuracy")
    values = [float(row["value"]) for row in rows]
    low, spread = min(values), max(max(values) - min(values), 1e-9)
    lines = ["    t  log-SNR  val accuracy"]
    for row, value in zip(rows, values, strict=True):
        mark = " <- chosen" if int(row["t"]) == metrics["t"] else ""
        bar = "#" * (1 + round(29 * (value - low) / spread))
        lines.append(f"{row['t']:>5}  {float(row['log_snr']):>7.2f}  {100 * value:6.2f} %  {bar}{mark}")
    return "\n".join(lines)


def _scores(file: Path, metrics: dict[str, Any]) -> str:
    """Without labels: over t the score that chose, and what the embeddings are like."""
    columns = {"score": "score", "neighbours kept": "kept", "effective rank": "effective_rank", "spread": "spread"}
    found = {name: {row["t"]: row["value"] for row in _rows(file, metric)} for name, metric in columns.items()}
    lines = ["    t  log-SNR  " + "  ".join(f"{name:>15}" for name in columns)]
    for row in _rows(file, "score"):
        t = row["t"]
        mark = "  <- chosen" if int(t) == metrics["t"] else ""
        values = "  ".join(f"{float(values[t]):>15.4g}" if values.get(t) else f"{'-':>15}" for values in found.values())
        lines.append(f"{t:>5}  {float(row['log_snr']):>7.2f}  {values}{mark}")
    return "\n".join(lines)


def _rows(file: Path, metric: str) -> list[dict[str, str]]:
    """DiER's rows of curve.csv but for those on test: on val, or what embed chose t by."""
    with file.open(encoding="utf-8") as opened:
        found = [row for row in csv.DictReader(opened) if (row["representation"], row["metric"]) == ("dier", metric)]
    return [row for row in found if row["split"] != "test"]


def _baselines(metrics: dict[str, Any]) -> str:
    lines = [f"{'representation':<24} {'t':>4} {'C':>7}  test accuracy              DiER's gain, paired"]
    for name, row in {"dier": metrics, **metrics["baselines"]}.items():
        t = "-" if row["t"] is None else row["t"]
        gain = points_with_interval(row["difference"]["accuracy"]) if "difference" in row else ""
        lines.append(f"{name:<24} {t:>4} {row['c']:>7g}  {with_interval(row['test']['accuracy']):<26} {gain}")
    return "\n".join(lines)


def _registry(registration: dict[str, Any]) -> str:
    gate = registration["gate"]
    verdict = gate["verdict"] if gate["passed"] else "REFUSED"
    aliases = ", ".join(registration["aliases"]) or "no alias"
    reasons = "".join(f"\n              {reason}" for reason in gate["reasons"])
    return f"gate          {verdict}{reasons}\nregistered    {registration['name']} version {registration['version']} ({aliases})"


def _times(file: Path) -> str:
    last = {row["step"]: row["seconds"] for row in map(json.loads, file.read_text("utf-8").splitlines())}
    total = sum(last.values())
    share = sum(last.get(step, 0) for step in COMPUTE) / total
    steps = ", ".join(f"{step} {seconds:.0f}" for step, seconds in last.items())
    return f"seconds       {steps}\n              {share:.0%} of the steps' time is in {', '.join(COMPUTE)}"
