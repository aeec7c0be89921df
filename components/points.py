"""Metrics of an MLflow run, logged by live training and by the register step, without doubling."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

CURVE = "train/"
"""Prefix of the training curve's metrics: the columns of the model artifact's `curve.csv` follow it."""


class Points:
    """Metrics of one run; a (name, step) that the run has already isn't logged again."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._there: dict[str, dict[int, float]] = {}

    def add(self, points: Iterable[tuple[int, Mapping[str, float]]], *, update: bool = False) -> int:
        """Log `(step, {name: value})` and return how many values were new; non-finite ones are left out.

        With `update` a value that differs from the latest at its step is logged too, and supersedes it.
        """
        from mlflow.entities import Metric

        now, metrics = int(time.time() * 1000), []
        for step, values in points:
            for name, value in values.items():
                there = self._steps(name)
                if math.isfinite(value) and (step not in there or (update and there[step] != value)):
                    there[step] = value
                    metrics.append(Metric(name, value, now, step))
        for start in range(0, len(metrics), 1000):  # the most that MLflow takes at once
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])
        return len(metrics)

    def _steps(self, name: str) -> dict[int, float]:
        if name not in self._there:
            history = sorted(self._client.get_metric_history(self._run_id, name), key=lambda metric: metric.timestamp)
            self._there[name] = {metric.step: metric.value for metric in history}
        return self._there[name]
