"""Watching a run on a cluster until its end: a line for each step that changes its state."""

import time
from collections.abc import Sequence
from typing import Any

from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import retry
from pipeline.kubeflow.api import Client
from pipeline.kubeflow.retry import retrying

ENDS = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR")


def wait_for(client: Client, run_id: str, steps: Sequence[str], url: str) -> None:
    """Return when the run has succeeded. Raises ClusterError, naming the failed steps, when it ended in any other way."""
    start = time.monotonic()
    try:
        run = _watch(client, run_id, steps, start)
    except BaseException:  # Ctrl-C too
        say(f"no longer waiting, but the run goes on: {url}")
        raise
    minutes = (time.monotonic() - start) / 60
    if run.state != "SUCCEEDED":
        ended = f"the run ended {run.state} after {minutes:.0f} min{_blame(run, steps)}"
        raise ClusterError(f"{ended}; open {url} and look at the failed step's logs")
    say(f"the run succeeded after {minutes:.0f} min")


def _watch(client: Client, run_id: str, steps: Sequence[str], start: float) -> Any:
    """Ask until the run has ended; say what changes."""
    shown: dict[str, str] = {}
    said = start
    while True:
        run = retrying(lambda: client.runs.run_service_get_run(run_id), "cannot see the run")
        states = {"run": run.state or "not scheduled yet", **_states(run, steps)}
        changes = [f"{name}: {state}" for name, state in states.items() if shown.get(name) != state]
        now = time.monotonic()
        if changes or now - said >= retry.STILL_S:
            running = ", ".join(name for name in steps if states.get(name) == "RUNNING")
            say("  ".join(changes) or f"run: still {states['run']} after {(now - start) / 60:.0f} min ({running or 'no step'})")
            said = now
        shown = states
        if run.state in ENDS:
            return run
        time.sleep(retry.POLL_S)


def _details(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []


def _states(run: Any, steps: Sequence[str]) -> dict[str, str]:
    """State by step. The API lists drivers, graphs and executors beside the steps themselves."""
    return {task.display_name: task.state for task in _details(run) if task.display_name in steps and task.state}


def _blame(run: Any, steps: Sequence[str]) -> str:
    """Which steps failed, and why where the API says it; a failed driver counts where no step failed."""
    failed = [task for task in _details(run) if task.state in ("FAILED", "ERROR")]
    own = [task for task in failed if task.display_name in steps] or failed
    named = [f"{task.display_name}{_message(task.error)}" for task in own]
    return f": {', '.join(named)}" if named else _message(run.error)


def _message(error: Any) -> str:
    text = " ".join(str(error.message).split()) if error and error.message else ""
    return f" ({text[:300]})" if text else ""
