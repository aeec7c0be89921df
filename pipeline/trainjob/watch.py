"""Watching a TrainJob until its end: a line for what changes, the last words of pods that failed."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import retry
from pipeline.kubeflow.retry import retrying
from pipeline.trainjob.client import JobError, Jobs
from pipeline.trainjob.manifest import NODE

LOG_LINES = 20
LOGS = 8
"""Pods whose last lines are shown, over the whole time; after those the cause is known."""


def watch(jobs: Jobs, name: str, is_permanent: Callable[[], bool]) -> str | None:
    """Wait for the end: None where the TrainJob is complete, else why it failed.

    `is_permanent` says whether a failure that no further try can cure was remembered: then its retries are not waited for.
    """
    start = said = time.monotonic()
    shown, words = "", _LastWords(jobs, name)
    while True:
        job = retrying(lambda: jobs.get(name), f"cannot see the TrainJob {name}")
        if job is None:
            raise ClusterError(f"the TrainJob {name} is gone from {jobs.namespace}: somebody deleted it; run the task again")
        state, now = f"{conditions(job) or 'waiting'}{words.look()}", time.monotonic()
        if state != shown or now - said >= retry.STILL_S:
            say(f"TrainJob {name}: {state} after {(now - start) / 60:.0f} min")
            shown, said = state, now
        if (end := ended(job)) is not None:
            return (
                None if end["type"] == "Complete" else f"{end.get('reason', 'Failed')}: {end.get('message') or 'no reason given'}"
            )
        if is_permanent():
            return "a failure that no retry can cure"
        time.sleep(retry.POLL_S)


def ended(job: dict[str, Any]) -> dict[str, Any] | None:
    """The condition that ended it, of type Complete or Failed; None while it goes on."""
    return next((one for one in _true(job) if one["type"] in ("Complete", "Failed")), None)


def conditions(job: dict[str, Any]) -> str:
    """The conditions that hold, such as Suspended."""
    return ", ".join(one["type"] for one in _true(job))


def _true(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in job.get("status", {}).get("conditions") or [] if one.get("status") == "True"]


class _LastWords:
    """The pods of a TrainJob, as far as the account may see them; each failure's last lines are passed on once."""

    def __init__(self, jobs: Jobs, name: str) -> None:
        self._jobs, self._name = jobs, name
        self._seen: set[tuple[str, int]] = set()
        self._quiet = False

    def look(self) -> str:
        """In which phases they are, such as `, pods: 1 Pending, 1 Running`."""
        if self._quiet:
            return ""
        try:
            pods = self._jobs.pods(self._name)
            for pod in pods:
                self._pass_on(pod)
        except JobError as error:
            self._quiet = error.status in (401, 403)
            say(f"{error}; going on without the pods' states and logs" if self._quiet else str(error))
            return ""
        phases = Counter(str(pod.status.phase) for pod in pods)
        return f", pods: {', '.join(f'{count} {phase}' for phase, count in sorted(phases.items()))}" if phases else ""

    def _pass_on(self, pod: Any) -> None:
        for container in pod.status.container_statuses or []:
            now = container.state.terminated if container.state else None
            before = container.last_state.terminated if container.last_state else None
            end, key = now or before, (pod.metadata.name, container.restart_count - (now is None))
            if container.name != NODE or end is None or end.exit_code == 0 or key in self._seen or len(self._seen) >= LOGS:
                continue
            self._seen.add(key)
            say(f"{pod.metadata.name} ended with exit code {end.exit_code} ({end.reason}); its last lines:")
            for line in self._jobs.log(pod.metadata.name, NODE, LOG_LINES, previous=now is None).splitlines():
                say(f"[{pod.metadata.name}] {line}")
