"""A cluster to talk to, and the things on it that have names: found by name, or made where there is none."""

import json
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import kfp_server_api as api

from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow.api.client import Client, every
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.api.login import Login

EQUALS, NOT_EQUALS, CONTAINS = 1, 2, 9
"""Operations of a filter (backend/api/v2beta1/filter.proto)."""


class Connection(TypedDict):
    """Where a cluster's API is, and who asks."""

    host: str | None
    token_file: Path | None
    cookie_file: Path | None
    ca: Path | None
    namespace: str | None


def connect(connection: Connection) -> Client:
    """A client whose server was asked what it is. Raises SettingsError for what is wrong at the desk, CallFailed otherwise."""
    login = Login(token_file=connection["token_file"], cookie_file=connection["cookie_file"])
    client = Client(connection["host"], login, connection["ca"])
    client.check_server(connection["namespace"])
    return client


def within(namespace: str | None) -> dict[str, Any]:
    """The namespace as an argument of a list or of what is made, where there is one."""
    return {} if namespace is None else {"namespace": namespace}


def where(key: str, value: str, operation: int = EQUALS) -> str:
    """A filter of lists."""
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": value}]})


def experiment_id(client: Client, name: str, namespace: str | None, *, make: bool = True) -> str:
    """That of the experiment; where there is none it is made, or without `make` an error."""
    service = client.experiments
    named = where("display_name", name)
    found = service.experiment_service_list_experiments(filter=named, **within(namespace)).experiments or []
    if len(found) > 1:
        raise ClusterError(f"{client.base} has {len(found)} experiments named {name}: give another name with --experiment")
    if not found and not make:
        raise ClusterError(f"{client.base} has no experiment {name!r}: check --experiment and --namespace")
    if not found:
        say(f"new experiment {name}")
        new = api.V2beta1Experiment(display_name=name, **within(namespace))
        found = [service.experiment_service_create_experiment(new)]
    return str(found[0].experiment_id)


def pipeline_id(client: Client, name: str, namespace: str | None) -> str:
    """That of the pipeline; it is made, empty, where there is none, so that its first version has a name of ours too."""
    service = client.pipelines
    named = where("display_name", name)
    found = service.pipeline_service_list_pipelines(filter=named, **within(namespace)).pipelines or []
    if len(found) > 1:
        raise ClusterError(f"{client.base} has {len(found)} pipelines named {name}: give another name with --pipeline-name")
    if not found:
        say(f"new pipeline {name}")
        new = api.V2beta1Pipeline(display_name=name, **within(namespace))
        found = [service.pipeline_service_create_pipeline(new)]
    return str(found[0].pipeline_id)


def find_run(client: Client, run: str, namespace: str | None) -> Any:
    """The run whose id or only name `run` is."""
    if _is_id(run):
        try:
            return client.runs.run_service_get_run(run)
        except CallFailed as error:
            if error.status != 404:
                raise
            raise _no_run(run, client) from error
    found = list(every(client.runs.run_service_list_runs, "runs", filter=where("display_name", run), **within(namespace)))
    found = [one for one in found if one.storage_state != "ARCHIVED"]
    if len(found) > 1:
        ids = ", ".join(str(one.run_id) for one in found[:3])
        raise ClusterError(f"{len(found)} runs are named {run!r}: give one's id, such as {ids}; dier runs lists them")
    if not found:
        raise _no_run(run, client)
    return client.runs.run_service_get_run(found[0].run_id)


def _no_run(name: str, client: Client) -> ClusterError:
    return ClusterError(
        f"{client.base} has no run {name!r}: dier runs lists them; where the cluster has several users give --namespace"
    )


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
