"""Live points of a training, in a thread of their own: MLflow may be slow or gone, and training goes on."""

import os
import queue
import threading
from collections.abc import Mapping
from types import TracebackType

from components.points import CURVE, Points
from components.progress import say
from components.tracking import DEFAULT_EXPERIMENT, connect, one_line_errors, quiet, redact, training_run

CLOSE_S = 10.0
"""How long `close` waits for what is still under way."""

# While training, a server that does not answer is given up on within seconds; register logs what is missing.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

Point = tuple[int, Mapping[str, float]]


class LiveLog:
    """Log points of the training `training_key` into its MLflow run as they come.

    Nothing here raises, and `log` never waits. When MLflow cannot be used one line on stderr says so and the rest is dropped:
    the register step logs whatever the run lacks from the artifact's `curve.csv`. Use as a context manager.
    """

    def __init__(self, training_key: str, experiment: str | None = None) -> None:
        self._key = training_key
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
        self._points: queue.Queue[Point | None] = queue.Queue()
        self._status = "FINISHED"
        self._lost = False
        self._environment = {name: os.environ.get(name) for name in IMPATIENT}
        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)
        quiet()
        try:
            import mlflow  # noqa: F401  here, not in the thread: two threads importing the same packages can trip each other
        except Exception as error:
            self._lose(error)
        self._thread = threading.Thread(target=self._work, name="mlflow-live", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand over one point: a row of `curve.csv` (its column `step` is left out), and others, such as images_per_second."""
        if not self._lost:
            self._points.put((step, {CURVE + name: float(value) for name, value in metrics.items() if name != "step"}))

    def close(self) -> None:
        """Wait a little for the points still under way."""
        self._points.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive() and not self._lost:
            self._lost = True
            say("MLflow is slow: points are still missing there; register logs them")
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def __enter__(self) -> "LiveLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self.close()

    def _work(self) -> None:
        try:
            if not self._lost:
                self._send()
        except Exception as error:
            self._lose(error)

    def _send(self) -> None:
        client = connect()
        with one_line_errors():
            run = training_run(client, self._key, self._experiment)
            if not run.joined:
                client.update_run(run.id, status="RUNNING")
            points = Points(client, run.id)
            while (point := self._points.get()) is not None:
                points.add([point])
            if not run.joined:
                client.set_terminated(run.id, self._status)

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            say(f"no live points in MLflow: {redact(' '.join(str(error).split()))}; training goes on, register logs them")
