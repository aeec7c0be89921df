"""What a training took, as far as its run in MLflow tells: artifacts hold no times, since they must not differ from run to run."""

import json
from typing import TYPE_CHECKING, Any

from components.tracking.client import Run
from components.tracking.environment import ENVIRONMENT_TAG
from components.tracking.metrics import CURVE

if TYPE_CHECKING:
    from mlflow import MlflowClient

RATE = CURVE + "images_per_second"


def training_cost(client: "MlflowClient", run: Run, batch_size: int | None, steps: int) -> dict[str, str]:
    """`time` and `hardware` of the training in words, each where it is known.

    Time is that of the steps at the rates that were logged, where nearly all of them have one: pauses do not count, nor does what
    was done between the steps.
    """
    found = {}
    if hardware := _hardware(client.get_run(run.id).data.tags.get(ENVIRONMENT_TAG)):
        found["hardware"] = hardware
    rates = {metric.step: metric.value for metric in client.get_metric_history(run.id, RATE) if metric.value > 0}
    if batch_size and rates and max(rates) >= 0.9 * steps:
        seconds, before = 0.0, 0
        for step in sorted(rates):
            seconds += (step - before) * batch_size / rates[step]
            before = step
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
