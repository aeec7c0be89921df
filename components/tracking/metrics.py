"""Metrics and settings of an MLflow run, logged by live training and by the register step, without doubling."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

CURVE = "train/"
"""Prefix of the training curve's metrics: the columns of the model artifact's `curve.csv` follow it."""


class Point(NamedTuple):
    """Some metrics at one step."""

    step: int
    values: Mapping[str, float]
    time: int | None = None
    """When it was measured, milliseconds of Unix time; None = when it is logged."""


class Points:
    """Metrics of one run; a (name, step) that the run has already isn't logged again.

    MLflow keeps every value that it is sent. What the run has is asked once a name, and again after an error: then nobody knows
    whether the batch arrived. Should it arrive later still, MLflow's SQL stores take the two for one as long as they carry the same
    time: that is what a point's own time is for.
    """

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._there: dict[str, dict[int, float]] = {}

    def add(self, points: Iterable[Point], *, update: bool = False) -> int:
        """Log points and return how many values were new; non-finite ones are left out.

        With `update` a value that differs from the latest at its step is logged too, and supersedes it.
        """
        try:
            metrics = self._new(points, update)
            for start in range(0, len(metrics), 1000):  # the most that MLflow takes at once
                self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])
        except Exception:
            self._there.clear()
            raise
        return len(metrics)

    def _new(self, points: Iterable[Point], update: bool) -> "list[Metric]":
        from mlflow.entities import Metric

        now, metrics = int(time.time() * 1000), []
        for point in points:
            for name, value in point.values.items():
                there = self._steps(name)
                if math.isfinite(value) and (point.step not in there or (update and there[point.step] != value)):
                    there[point.step] = value
                    metrics.append(Metric(name, value, now if point.time is None else point.time, point.step))
        return metrics

    def _steps(self, name: str) -> dict[int, float]:
        if name not in self._there:
            history = sorted(self._client.get_metric_history(self._run_id, name), key=lambda metric: metric.timestamp)
            self._there[name] = {metric.step: metric.value for metric in history}
        return self._there[name]


def params(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Settings as MLflow's params, `section.key`: text as it is, the rest as JSON."""
    return {
        f"{section}.{key}": value if isinstance(value, str) else json.dumps(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def log_settings(client: "MlflowClient", run_id: str, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Log settings as params of a run. One that the run has stays as it is: MLflow refuses another value."""
    from mlflow.entities import Param

    if wanted := params(sections):
        there = client.get_run(run_id).data.params
        new = [Param(key, value) for key, value in wanted.items() if key not in there]
        for start in range(0, len(new), 100):  # the most that MLflow takes at once
            client.log_batch(run_id, params=new[start : start + 100])
