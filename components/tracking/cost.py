"""What a training took, as far as its run in MLflow tells: artifacts hold no times, since they must not differ from run to run."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from components.tracking.client import Run
from components.tracking.environment import ENVIRONMENT_TAG, read_json
from components.tracking.metrics import CURVE

if TYPE_CHECKING:
    from mlflow import MlflowClient

RATE, ENERGY = CURVE + "images_per_second", CURVE + "joules"


def training_cost(client: "MlflowClient", run: Run, training: Mapping[str, Any], steps: int) -> dict[str, str]:
    """`time`, `energy` and `hardware` of the training with these settings, in words, each where it is known.

    Time is that of the steps at the rates that were logged, where all of them have one: no two points further apart than
    `log_every`. Pauses do not count, nor does what was done between the steps. Energy is that of the processors, in the same way.
    """
    found = {}
    if hardware := _hardware(client.get_run(run.id).data.tags.get(ENVIRONMENT_TAG)):
        found["hardware"] = hardware
    batch_size, every = training.get("batch_size"), training.get("log_every", 0)
    if batch_size and (rates := _spans(client, run, RATE, every, steps)):
        seconds = sum(length * batch_size / rate for length, rate in rates)
        found["time"] = f"{_duration(seconds)} by the images a second that were logged, pauses not counted"
    if joules := _spans(client, run, ENERGY, every, steps):
        found["energy"] = f"{sum(value for _, value in joules) / 1000:.1f} kJ by the processors' counters, whatever ran on them"
    return found


def _spans(client: "MlflowClient", run: Run, metric: str, every: int, steps: int) -> list[tuple[int, float]]:
    """The points of a metric, each with how many steps it is of; [] where there is a step that none is of."""
    points = {one.step: one.value for one in client.get_metric_history(run.id, metric) if one.value > 0}
    spans = [(after - before, points.get(after, 0.0)) for before, after in pairwise(sorted({0, *points, steps}))]
    return spans if all(value and length <= every for length, value in spans) else []


def _hardware(tag: str | None) -> str | None:
    told = read_json(tag)
    if not told:
        return None
    gpu = told.get("gpu", "none")
    return f"{gpu} ({told.get('machine')})" if gpu != "none" else f"CPU ({told.get('machine')}), no GPU"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
