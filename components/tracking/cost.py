"""What a training took, as far as its run in MLflow tells: artifacts hold no times, since they must not differ from run to run."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from components.tracking.client import Run
from components.tracking.environment import ENVIRONMENT_TAG
from components.tracking.metrics import CURVE

if TYPE_CHECKING:
    from mlflow import MlflowClient

RATE = CURVE + "images_per_second"


def training_cost(client: "MlflowClient", run: Run, training: Mapping[str, Any], steps: int) -> dict[str, str]:
    """`time` and `hardware` of the training with these settings, in words, each where it is known.

    Time is that of the steps at the rates that were logged, where all of them have one: no two points further apart than
    `log_every`. Pauses do not count, nor does what was done between the steps.
    """
    found = {}
    if hardware := _hardware(client.get_run(run.id).data.tags.get(ENVIRONMENT_TAG)):
        found["hardware"] = hardware
    rates = {metric.step: metric.value for metric in client.get_metric_history(run.id, RATE) if metric.value > 0}
    batch_size, every = training.get("batch_size"), training.get("log_every")
    spans = [(after - before, rates.get(after)) for before, after in pairwise(sorted({0, *rates, steps}))]
    if batch_size and every and all(rate and length <= every for length, rate in spans):
        seconds = sum(length * batch_size / rate for length, rate in spans if rate)
        found["time"] = f"{_duration(seconds)} by the images a second that were logged, pauses not counted"
    return found


def _hardware(tag: str | None) -> str | None:
    try:
        told: dict[str, Any] = json.loads(tag or "{}")
    except ValueError:
        return None
    if not told:
        return None
    gpu = told.get("gpu", "none")
    return f"{gpu} ({told.get('machine')})" if gpu != "none" else f"CPU ({told.get('machine')}), no GPU"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
