"""Why a run failed: the task, and the last line of its log that says so."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ClusterError
from pipeline.kubeflow.api.client import Client
from pipeline.kubeflow.api.logs import lines, read_log
from pipeline.kubeflow.api.workflow import DRIVER, Pod, Workflow, workflow
from pipeline.steps import OUTCOME

PREFIX = "dier: error: "
FATAL = re.compile(r"^F\d{4} [\d:.]+ +\d+ [\w.-]+:\d+\] (.*)")
"""A line of Kubeflow's driver or launcher before it gives up (glog)."""
AGAIN_S = 2.0


@dataclass(frozen=True)
class Failure:
    """What ended a run."""

    step: str
    """Name of the failed task; of a task that could not even start `TASK-driver`."""
    line: str
    """Its own last error, in one line; Argo's word, such as `OOMKilled (exit code 137)`, where it left none. May be empty."""

    def __str__(self) -> str:
        return f"{self.step}: {self.line}" if self.line else self.step


def failure(client: Client, run_id: str, *, namespace: str | None = None, patience_s: float = 0) -> Failure | None:
    """Why the run `run_id` failed; None where no task of it has failed.

    What the API knows of a run may be seconds old: inside the run, `patience_s` is how long to ask again. Raises CallFailed where
    the run itself cannot be read; a log that cannot is left out.
    """
    until = time.monotonic() + patience_s
    while True:
        seen = workflow(client, run_id)
        pod = failed_pod(seen)
        if pod is not None or time.monotonic() >= until:
            break
        time.sleep(AGAIN_S)
    return Failure(pod.task, error_line(client, run_id, seen, pod, namespace)) if pod is not None else None


def failed_pod(seen: Workflow) -> Pod | None:
    """The last try of the task that failed first: later ones may have failed because of it, the one at the end last of all."""
    failed = [pod for pod in seen.last_tries() if pod.failed]
    return next((pod for pod in failed if pod.task.removesuffix(DRIVER) != OUTCOME), failed[0] if failed else None)


def error_line(client: Client, run_id: str, seen: Workflow, pod: Pod, namespace: str | None = None) -> str:
    """The last error in the pod's log, or else what Argo says of the pod."""
    try:
        found = last_error(lines(read_log(client, run_id, seen, pod, namespace)))
    except ClusterError:
        found = ""
    return found or " ".join(pod.message.removeprefix("main: ").split())


def last_error(log: Iterable[str]) -> str:
    """The last `dier: error:` line without that prefix; or else why Kubeflow's driver or launcher gave up; or else nothing."""
    own, theirs = "", ""
    for line in log:
        if line.startswith(PREFIX):
            own = line.removeprefix(PREFIX).strip()
        elif found := FATAL.match(line):
            theirs = found[1].strip()
    return own or theirs


def how_it_ended(run: Any) -> str:
    """The state of a run that has ended, in the API's words, but that one that was terminated is FAILED there, after CANCELING."""
    before = [entry.state for entry in run.state_history or [] if entry.state != run.state]
    return "CANCELED" if run.state in ("FAILED", "CANCELED") and before[-1:] == ["CANCELING"] else str(run.state)
