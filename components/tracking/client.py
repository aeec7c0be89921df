"""MLflow: where it is, what its errors mean, and the one run of a training.

A training is known by its `training_key` (fingerprint of data, settings and code). It has one run, which the train step logs
into live and the register step completes; MLFLOW_RUN_ID (set by Kubeflow, say) names another run to join instead.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from components.common.errors import SettingsError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo
    from mlflow.store.entities import PagedList

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "dier"
KEY_TAG = "dier.training_key"
KUBEFLOW_TAG = "dier.kubeflow_run"
"""The run of Kubeflow that a training is part of: its exit handler closes the run by it."""
KUBEFLOW_RUN = "DIER_RUN_ID"
"""Environment variable with that run's id: the compiled pipeline sets it, and `dier run-local`."""
ABANDONED_S = 3600
"""A SQLite file that has been in the making for so long is nobody's any more."""

# What MLflow reads from the environment, unless the user has set it: no telemetry, no pickles, no chatter, and an unreachable
# server is given up on after about 14 s (2 + 4 + 8) instead of MLflow's four minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(Exception):
    """MLflow does not answer, or says no (exit code 1). The message is one line without passwords."""


@dataclass(frozen=True)
class Run:
    """The MLflow run of a training."""

    id: str
    experiment_id: str
    joined: bool
    """Whether somebody else started it (MLFLOW_RUN_ID): then it isn't ours to end."""


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def redact(text: str) -> str:
    """`text` with the user:password of every URI in it hidden."""
    return re.sub(r"(://)[^/\s'\"]*@", r"\1***@", text)


def set_environment() -> None:
    """Set ENVIRONMENT where the user has not; call it before the first import of mlflow."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(*, must_exist: bool = False) -> "MlflowClient":
    """A client for `tracking_uri()`. With `must_exist` a SQLite file that is absent is a SettingsError, and is not made."""
    uri = tracking_uri()
    file = Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None
    if file is not None:
        _check_sqlite(uri, file, must_exist)
    set_environment()
    import mlflow

    with one_line_errors():
        if file is not None and not file.is_file():
            _make_sqlite(file)
        mlflow.set_tracking_uri(uri)
        return mlflow.MlflowClient(tracking_uri=uri)


def _check_sqlite(uri: str, file: Path, must_exist: bool) -> None:
    """MLflow tries a database that cannot be opened for nearly two minutes; ask SQLite first."""
    if not file.is_file():
        if must_exist:
            raise SettingsError(f"no MLflow store at {uri} yet: run dier register first, or set MLFLOW_TRACKING_URI")
        if not os.access(file.parent, os.W_OK):
            raise TrackingError(f"cannot make {file}: its folder cannot be written; set MLFLOW_TRACKING_URI to another place")
        return
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        connection.execute("PRAGMA schema_version").fetchone()
        connection.close()
    except sqlite3.Error as error:
        raise TrackingError(f"cannot open the MLflow store {file}: {error}; mend it or set MLFLOW_TRACKING_URI") from error


def _make_sqlite(file: Path) -> None:
    """Make MLflow's tables in a file beside, and give it its name at the end.

    MLflow takes seconds over them, in dozens of transactions, and cannot open a file that a kill left with some of them.
    """
    import mlflow

    for left in file.parent.glob(f"{file.name}.new-*"):
        with suppress(FileNotFoundError):  # its process is at work
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()
    beside = file.with_name(f"{file.name}.new-{uuid4().hex[:12]}").absolute()
    try:
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{beside}")
        try:
            os.link(beside, file)  # unlike a rename it never replaces: of two processes at once the first one's file stays
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            beside.rename(file)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what MLflow and its HTTP client raise into a TrackingError of one line."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped, unused-ignore]

    try:
        yield
    except (MlflowException, RequestException) as error:
        raise TrackingError(_explain(error)) from error


def _explain(error: Exception) -> str:
    where = redact(tracking_uri())
    text = redact(" ".join(str(error).split()))
    refused = re.search(r"(?:error code |^|\b(?=40[13] Client Error))(401|403)\b", text)  # the API's words, and a download's
    if refused:
        return (
            f"MLflow at {where} refused access ({refused[1]}): check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "(or MLFLOW_TRACKING_TOKEN), and that the server allows this host name"
        )
    if re.search(r"Max retries exceeded|Connection|timed out|Temporary failure|resolve", text):
        return f"MLflow at {where} does not answer: start the server, or set MLFLOW_TRACKING_URI ({text[:200]})"
    return f"MLflow at {where}: {text[:500]}"


def every(search: "Callable[..., PagedList[T]]", *arguments: Any) -> "list[T]":
    """All that one of the client's searches finds, page by page."""
    found, token = list[T](), None
    while True:
        page = search(*arguments, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def training_run(client: "MlflowClient", training_key: str, experiment: str) -> Run:
    """Find the run of this training, in whatever experiment, or make it in `experiment`; MLFLOW_RUN_ID joins that run instead."""
    joined = os.environ.get("MLFLOW_RUN_ID")
    if joined:
        info = _joined(client, joined)
        if info.lifecycle_stage != "active":
            raise TrackingError(f"MLFLOW_RUN_ID {joined} names a deleted run: restore it or unset the variable")
        client.set_tag(joined, KEY_TAG, training_key)
        return _of_kubeflow(client, Run(joined, info.experiment_id, True))
    experiments = [e.experiment_id for e in every(client.search_experiments)]
    found = client.search_runs(
        experiments, f"tags.`{KEY_TAG}` = '{training_key}'", order_by=["attributes.start_time ASC"], max_results=1
    )
    info = found[0].info if found else _new_run(client, training_key, experiment)
    return _of_kubeflow(client, Run(info.run_id, info.experiment_id, False))


def _of_kubeflow(client: "MlflowClient", run: Run) -> Run:
    """The same run, with the tag that leads from Kubeflow's newest run to it where this is one."""
    if os.environ.get(KUBEFLOW_RUN):
        client.set_tag(run.id, KUBEFLOW_TAG, os.environ[KUBEFLOW_RUN])
    return run


def _joined(client: "MlflowClient", run_id: str) -> "RunInfo":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        where = redact(tracking_uri())
        raise TrackingError(f"MLFLOW_RUN_ID {run_id} names no run at {where}: correct it or unset the variable") from error


def _new_run(client: "MlflowClient", training_key: str, experiment: str) -> "RunInfo":
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(experiment)
    if known is None:
        try:
            client.create_experiment(experiment)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
                raise
        known = client.get_experiment_by_name(experiment)
    if known is None or known.lifecycle_stage != "active":
        raise TrackingError(f"the MLflow experiment {experiment!r} is deleted: restore it or set register.experiment")
    return client.create_run(known.experiment_id, tags={KEY_TAG: training_key}, run_name=f"training-{training_key[:12]}").info
