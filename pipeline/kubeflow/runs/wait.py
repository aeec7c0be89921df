"""Watching a run on a cluster until its end: a line for each step that changes its state."""

import time
from collections.abc import Sequence
from typing import Any

from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import retry
from pipeline.kubeflow.api.client import Client
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.failure import failure, how_it_ended
from pipeline.kubeflow.retry import retrying

ENDS = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
"""Of the API's states (V2beta1RuntimeState) those that a run stays in."""


def wait_for(client: Client, run_id: str, steps: Sequence[str], url: str, namespace: str | None = None) -> None:
    """Return when the run has succeeded. Raises ClusterError, with the failed step's last line, when it ended in any other way."""
    start = time.monotonic()
    try:
        run = _watch(client, run_id, steps, start)
    except BaseException:  # Ctrl-C too
        say(f"no longer waiting, but the run goes on: {url}")
        raise
    minutes = (time.monotonic() - start) / 60
    if run.state != "SUCCEEDED":
        ended = f"the run ended {how_it_ended(run)} after {minutes:.0f} min"
        why = _why(client, run, steps, namespace)
        raise ClusterError(f"{ended}{f': {why}' if why else ''}; dier logs {run_id}, or {url}")
    say(f"the run succeeded after {minutes:.0f} min")


def states(run: Any, steps: Sequence[str]) -> dict[str, str]:
    """State by step. The API lists drivers, graphs and executors beside the steps themselves, and a loop's step once a round."""
    found: dict[str, set[str]] = {}
    for task in _details(run):
        if task.display_name in steps and task.state:
            found.setdefault(task.display_name, set()).add(task.state)
    return {step: _together(each) for step, each in found.items()}


def _together(each: set[str]) -> str:
    if len(each) == 1:
        return next(iter(each))
    return "FAILED" if "FAILED" in each else "RUNNING"


def _watch(client: Client, run_id: str, steps: Sequence[str], start: float) -> Any:
    """Ask until the run has ended; say what changes."""
    shown: dict[str, str] = {}
    said = start
    while True:
        run = retrying(lambda: client.runs.run_service_get_run(run_id), "cannot see the run")
        now_states = {"run": run.state or "not scheduled yet", **states(run, steps)}
        changes = [f"{name}: {state}" for name, state in now_states.items() if shown.get(name) != state]
        now = time.monotonic()
        if changes or now - said >= retry.STILL_S:
            running = ", ".join(name for name in steps if now_states.get(name) == "RUNNING")
            say("  ".join(changes) or f"run: still {now_states['run']} after {(now - start) / 60:.0f} min ({running or 'no step'})")
            said = now
        shown = now_states
        if run.state in ENDS:
            return run
        time.sleep(retry.POLL_S)


def _why(client: Client, run: Any, steps: Sequence[str], namespace: str | None) -> str:
    """The failed step and its last line; where they cannot be read, what the API itself says of the run."""
    try:
        found = failure(client, run.run_id, namespace=namespace)
    except CallFailed as error:
        say(f"cannot read why: {error}")
        found = None
    if found is not None:
        return str(found)
    failed = [task.display_name for task in _details(run) if task.state == "FAILED"]
    return ", ".join([name for name in failed if name in steps] or failed) or _message(run.error)


def _details(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []


def _message(error: Any) -> str:
    return " ".join(str(error.message).split())[:300] if error and error.message else ""
