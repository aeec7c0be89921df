"""Complete the MLflow run of a training from its artifacts, whatever live logging managed to send."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.common.artifact import Artifact
from components.tracking.client import Run
from components.tracking.metrics import CURVE, Point, Points, log_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


def complete_run(
    client: "MlflowClient",
    run: Run,
    model: Artifact,
    probe: Artifact,
    report: Artifact,
    settings: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give the run what live logging did not: missing points of the curve, `settings`, the probe's figures, the report."""
    points = Points(client, run.id)
    points.add(_curve(model))
    points.add(_probed(probe), update=True)
    log_settings(client, run.id, settings)
    client.log_artifact(run.id, str(report.path / "report.html"))
    client.log_artifact(run.id, str(model.path / "curve.csv"), "training")
    client.log_artifact(run.id, str(probe.path / "curve.csv"), "probe")
    if not run.joined:
        client.set_terminated(run.id)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def _curve(model: Artifact) -> list[Point]:
    rows = _rows(model.path / "curve.csv")
    return [Point(int(row.pop("step")), {CURVE + name: float(text) for name, text in row.items() if text}) for row in rows]


def _probed(probe: Artifact) -> list[Point]:
    """The probe's figures with t as the step, so that MLflow draws them over t (0 where a representation has no t)."""
    rows = _rows(probe.path / "curve.csv")
    return [
        Point(int(float(row["t"] or 0)), {f"probe/{row['representation']}/{row['split']}_{row['metric']}": float(row["value"])})
        for row in rows
        if row["value"]
    ]
