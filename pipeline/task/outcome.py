"""The task at the end of a run, whatever happened: it ends what the run left running, records how it ended, and tells people.

Kubeflow runs it after a termination too. What it is told of the steps is one word, without a reason: COMPLETE, FAILED, or RUNNING,
which it says of steps that were terminated, and also where the last one never reached its launcher or came from the cache
(2.17.0, backend/src/v2/component/launcher_v2.go:227). So the pipelines' API is asked: whether the run is being terminated, which
task failed, and why. Nothing here may fail the task for a server that is away: what cannot be done is said.
"""

import json
import os
import urllib.request
from collections.abc import Callable
from http.client import InvalidURL
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.errors import SettingsError
from components.common.progress import say
from pipeline.run_step import one_line
from pipeline.task import executor
from pipeline.task.run_id import run_id

STATES = {"COMPLETE": "SUCCEEDED", "SUCCEEDED": "SUCCEEDED", "FAILED": "FAILED"}
"""Kubeflow's word for the steps, and the API's for the run."""
UNKNOWN = "UNKNOWN"
"""The steps are said to be RUNNING, and the API, which would know more, did not answer."""
WEBHOOK = "DIER_OUTCOME_WEBHOOK"
"""Environment variable with the URL that is told; it is a password, and stands in no message."""
TIMEOUT_S = 20.0
PATIENCE_S = 20.0
"""What the pipelines' API knows of a run is seconds old."""


def record_outcome(executor_input: str, status: str, out: Path, *, end_trainjob: bool) -> None:
    """Write how the run ended as an artifact, `outcome.json`: state, run, failed task and its last line; then tell the webhook."""
    given, ended = executor.parse(executor_input), _status(status)
    run, told = run_id(), str(ended.get("state"))
    if end_trainjob:
        _tried("end the TrainJob", lambda: _end_trainjob(run))
    state, failed = STATES.get(told, UNKNOWN), None
    if state != "SUCCEEDED":
        state, failed = _tried("ask the pipelines' API how the run ended", lambda: _asked(run, told)) or (state, None)
        _tried("close MLflow's run", lambda: _close_mlflow_run(run, state))
    outcome = {
        "state": state,
        "run": run,
        "failed_task": failed.step if failed else "",
        "message": failed.line if failed else str((ended.get("error") or {}).get("message") or ""),
    }
    with artifact.create(out, "outcome", {}) as folder:
        artifact.write_json(folder / "outcome.json", outcome)
    executor.write(given, {executor.name_of(given, out): outcome})
    text = sentence(outcome)
    say(text)
    if os.environ.get(WEBHOOK):
        _tried("tell the webhook", lambda: _post(os.environ[WEBHOOK], text))


def sentence(outcome: dict[str, str]) -> str:
    """How the run ended, for people."""
    blame = f", {outcome['failed_task']}" if outcome["failed_task"] else ""
    why = f": {outcome['message']}" if outcome["message"] else ""
    return one_line(f"run {outcome['run']}: {outcome['state']}{blame}{why}")


def _status(text: str) -> dict[str, Any]:
    try:
        ended = json.loads(text)
    except ValueError:
        ended = None
    if not isinstance(ended, dict):
        raise SettingsError(f"--status {text!r} is no final status; dier outcome runs at the end of a Kubeflow run")
    return ended


def _tried(what: str, do: Callable[[], Any]) -> Any:
    try:
        return do()
    except Exception as error:
        say(one_line(f"could not {what}: {type(error).__name__}: {error}"))
        return None


def _end_trainjob(run: str) -> None:
    from pipeline.trainjob.end import end_trainjob

    end_trainjob(run)


def _close_mlflow_run(run: str, state: str) -> None:
    from components.tracking.close_run import close_mlflow_run

    close_mlflow_run(run, "FAILED" if state == "FAILED" else "KILLED")


def _asked(run: str, told: str) -> tuple[str, Any]:
    """State and failure by the API. Steps that did not end COMPLETE, and of which none failed, came from the cache."""
    from pipeline.kubeflow.api.client import inside_client
    from pipeline.kubeflow.failure import failure

    client = inside_client()
    if client.runs.run_service_get_run(run).state in ("CANCELING", "CANCELED"):
        return "CANCELED", None
    failed = failure(client, run, patience_s=PATIENCE_S)
    return "FAILED" if failed or told == "FAILED" else "SUCCEEDED", failed


def _post(url: str, text: str) -> None:
    body = json.dumps({"text": text}).encode()
    wrong = SettingsError(f"{WEBHOOK} holds no http or https address: check the Secret of outcome.webhook in the cluster file")
    if not url.startswith(("https://", "http://")):
        raise wrong
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            pass
    except (ValueError, InvalidURL):  # their texts quote the address, whole or in part
        raise wrong from None
