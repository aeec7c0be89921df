"""Live points of a training. They wait on disk, and a thread of their own brings them to MLflow, which may be slow or gone."""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from components.common.progress import say
from components.tracking.client import DEFAULT_EXPERIMENT, Run, connect, one_line_errors, redact, set_environment, training_run
from components.tracking.environment import ENVIRONMENT_TAG, environment, git_tags
from components.tracking.metrics import CURVE, Point, Points, log_settings
from components.tracking.spool import Spool
from model.atomic import canonical_json

CLOSE_S, LONGEST_CLOSE_S = 10.0, 120.0
"""How long `close` waits for MLflow to take another batch, and how long for all of them."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""After a failure the next attempt comes this much later, twice as late after each further one, up to the longest."""
PAUSE_S = 1.0
"""Between two requests that went well: points that come close together go together, at less cost to training."""
REPORT_AGAIN_S = 600.0
"""An outage sooner than this after one that was reported is not reported."""
BATCH = 50
"""Points sent at once: with fewer than 20 values each, what MLflow takes in one request."""
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


class LiveLog:
    """Log the settings of a training, named by `training_key`, into its MLflow run, and its points as they come.

    Nothing here raises, and `log` waits for no network and no fsync. While MLflow cannot be used, points wait in a
    spool in `folder`, for this process or for the next one of the same training. Use as a context manager.
    """

    def __init__(
        self,
        training_key: str,
        folder: Path,
        experiment: str | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._key, self._settings = training_key, settings or {}
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
        self._status = "FINISHED"
        self._started = {ENVIRONMENT_TAG: canonical_json(environment()), **git_tags(Path.cwd())}
        self._run: Run | None = None
        self._outage_since: float | None = None
        self._reported_at: float | None = None
        self._wake, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._retries = os.environ.get(RETRIES)
        os.environ[RETRIES] = "0"  # trying again is done here, where what MLflow has is asked first
        self._disk_error_reported = False
        self._spool: Spool | None = None
        try:
            self._spool = Spool(folder)
        except OSError as error:
            self._report_disk_error(error)
        set_environment()
        try:
            import mlflow  # noqa: F401  here, not in the thread: two threads importing the same packages can trip each other
        except Exception as error:
            self._report_outage(error)
        self._thread = threading.Thread(target=self._work, name="mlflow-live", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float], prefix: str = CURVE) -> None:
        """Hand over one point: a row of `curve.csv` (its column `step` is left out), and others, such as images_per_second."""
        if self._spool is None:
            return
        values = {prefix + name: float(value) for name, value in metrics.items() if name != "step"}
        error = self._spool.append(Point(step, values, int(time.time() * 1000)))
        if error:
            self._report_disk_error(error)
        self._wake.set()

    def close(self) -> None:
        """Wait for the points still under way, as long as MLflow takes them; say how many stay on disk."""
        if self._spool is not None:
            self._spool.write()
        self._closing.set()
        self._wake.set()
        until, sent = time.monotonic() + LONGEST_CLOSE_S, -1
        while self._thread.is_alive() and time.monotonic() < until and self._sent() != sent:
            sent = self._sent()
            self._thread.join(CLOSE_S)
        self._given_up.set()
        if self._retries is None:
            os.environ.pop(RETRIES, None)
        else:
            os.environ[RETRIES] = self._retries
        if self._spool is not None and (waiting := self._spool.waiting()):
            say(
                f"{waiting} live points wait in {self._spool.path}, MLflow has not taken them: they go there when the same "
                "training is started again, and register logs the training curve"
            )

    def __enter__(self) -> "LiveLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self.close()

    def _sent(self) -> int:
        return self._spool.sent if self._spool is not None else 0

    def _work(self) -> None:
        """Deliver what waits, whenever there is something, until `close`; after a failure wait, and ask MLflow anew what it has."""
        wait = FIRST_WAIT_S
        while self._spool is not None and not self._given_up.is_set():
            self._wake.clear()  # before looking, so that what comes while looking is seen
            last = self._closing.is_set()
            try:
                self._deliver(self._spool)
                if last:
                    self._end()
                    return
                wait = FIRST_WAIT_S
                self._closing.wait(PAUSE_S)
                self._wake.wait()
            except Exception as error:
                stale = self._run is not None  # perhaps only what was known is out of date: the run, an idle connection
                self._report_outage(error)
                if last and not stale:
                    return
                self._closing.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)

    def _deliver(self, spool: Spool) -> None:
        spool.sync()
        if self._run is None:
            self._client = connect()
            with one_line_errors():
                run = training_run(self._client, self._key, self._experiment)
                if not run.joined:
                    self._client.update_run(run.id, status="RUNNING")
                log_settings(self._client, run.id, self._settings)
                self._tag(run)
            self._run, self._points = run, Points(self._client, run.id)
        with one_line_errors():
            while not self._given_up.is_set() and (batch := spool.pending(self._run.id, BATCH)):
                self._points.add(batch.points)
                spool.acknowledge(self._run.id, batch.end)
        if self._outage_since is not None and self._outage_since == self._reported_at:
            say(f"MLflow is back after {time.monotonic() - self._outage_since:.0f} s: the live points that waited are there")
        self._outage_since = None

    def _tag(self, run: Run) -> None:
        """Say where and from which commit the training started: one that goes on, or is found finished, leaves it as it is.

        A run that somebody else started may have been another training's before.
        """
        there = {} if run.joined else self._client.get_run(run.id).data.tags
        for name, value in self._started.items():
            if name not in there:
                self._client.set_tag(run.id, name, value)

    def _end(self) -> None:
        if self._run is not None and not self._run.joined:
            with one_line_errors():
                self._client.set_terminated(self._run.id, self._status)

    def _report_outage(self, error: Exception) -> None:
        self._run = None  # when MLflow is back it may be another, on another server say
        if self._outage_since is None:
            self._outage_since = time.monotonic()
            if self._spool is not None and (self._reported_at is None or self._outage_since - self._reported_at >= REPORT_AGAIN_S):
                self._reported_at = self._outage_since
                what = redact(" ".join(str(error).split()))
                say(f"no live points in MLflow: {what}; training goes on, they wait in {self._spool.path}")

    def _report_disk_error(self, error: OSError) -> None:
        if not self._disk_error_reported:
            self._disk_error_reported = True
            say(f"cannot keep live points on disk: {error}; training goes on, register logs the training curve")
