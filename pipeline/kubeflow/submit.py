"""`dier submit` and `dier upload`: the compiled pipeline on a cluster, as a run or as a version to run from the UI.

What can be checked without the cluster is checked first. A run is asked for exactly once: where the answer is lost, the person
is told to look before asking again, since nobody else can know.
"""

import copy
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import kfp_server_api as api

from components.common import artifact
from components.common.errors import SettingsError
from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow import compiled_file
from pipeline.kubeflow.api import Client
from pipeline.kubeflow.api_errors import CallFailed
from pipeline.kubeflow.cluster import DIGEST
from pipeline.kubeflow.wait import wait_for


class Connection(TypedDict):
    """Where a cluster's API is, and who asks."""

    host: str | None
    token_file: Path | None
    ca: Path | None
    namespace: str | None


def submit(
    pipeline: Path,
    *,
    cluster: Path,
    experiment: str,
    run_name: str | None,
    overrides: Sequence[str],
    no_cache: bool,
    wait: bool,
    allow_tag: bool,
    **connection: Unpack[Connection],
) -> int:
    """Start a run and print its id and URL; with `wait`, stay until its end. 0 = started, or, with `wait`, succeeded.

    The run's service account is that of the `cluster` file. Raises SettingsError before anything is sent where that can be seen
    offline, ClusterError for all that goes wrong later.
    """
    service_account = cluster_settings.load(cluster).service_account
    compiled = compiled_file.read(pipeline)
    _check_images(compiled, allow_tag)
    arguments = compiled_file.arguments(compiled, overrides)
    client, namespace = _connect(connection), connection["namespace"]
    name = run_name or f"{compiled.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    body = api.V2beta1Run(
        experiment_id=_experiment(client, experiment, namespace),
        display_name=name,
        pipeline_spec=_document(compiled, no_cache),
        runtime_config=api.V2beta1RuntimeConfig(parameters=arguments),
        service_account=service_account,
    )
    run_id = _create_run(client, body, experiment)
    url = f"{_ui(client)}/#/runs/details/{run_id}"
    print(f"run {run_id} ({name})\n{url}", flush=True)
    if wait:
        wait_for(client, run_id, compiled.steps, url)
    return 0


def upload(
    pipeline: Path,
    *,
    name: str,
    version_name: str | None,
    allow_tag: bool,
    **connection: Unpack[Connection],
) -> None:
    """Store the compiled pipeline as a version of the pipeline `name`; what is missing is made. Raises as submit does."""
    compiled = compiled_file.read(pipeline)
    _check_images(compiled, allow_tag)
    version = version_name or f"sha256-{artifact.sha256(pipeline)[:12]}"
    client = _connect(connection)
    pipeline_id = _pipeline(client, name, connection["namespace"])
    answer = client.pipelines.pipeline_service_list_pipeline_versions(pipeline_id, filter=_name_filter(version))
    found = [known.pipeline_version_id for known in answer.pipeline_versions or []]
    if found:
        print(f"already there: version {version} of {name}, {found[0]}")
    else:
        found = [_upload_version(client, pipeline, version, pipeline_id)]
        print(f"uploaded version {version} of {name}, {found[0]}")
    print(f"{_ui(client)}/#/pipelines/details/{pipeline_id}/version/{found[0]}")


def _connect(connection: Connection) -> Client:
    client = Client(connection["host"], connection["token_file"], connection["ca"])
    client.check_namespace(connection["namespace"])
    return client


def _upload_version(client: Client, pipeline: Path, version: str, pipeline_id: str) -> str:
    try:
        return str(client.uploads.upload_pipeline_version(str(pipeline), name=version, pipelineid=pipeline_id).pipeline_version_id)
    except CallFailed as error:
        again = "; run the same command again: it looks first, and stores no version twice" if error.unknown else ""
        raise ClusterError(f"{error}{again}") from error


def _check_images(compiled: compiled_file.Package, allow_tag: bool) -> None:
    loose = [image for image in compiled.images if not DIGEST.search(image)]
    if loose and not allow_tag:
        raise SettingsError(
            f"image {loose[0]} in {compiled.path} has no @sha256: digest: the cluster's cache knows an image by its name alone, "
            "and would give old results for a new one; compile with a digest in the cluster file, or pass --allow-tag"
        )


def _experiment(client: Client, name: str, namespace: str | None) -> str:
    """Its id; it is made where there is none."""
    service = client.experiments
    found = service.experiment_service_list_experiments(filter=_name_filter(name), **_within(namespace)).experiments or []
    if len(found) > 1:
        raise ClusterError(f"{client.base} has {len(found)} experiments named {name}: give another name with --experiment")
    if not found:
        say(f"new experiment {name}")
        new = api.V2beta1Experiment(display_name=name, **_within(namespace))
        found = [service.experiment_service_create_experiment(new)]
    return str(found[0].experiment_id)


def _pipeline(client: Client, name: str, namespace: str | None) -> str:
    """Its id; it is made, empty, where there is none, so that its first version has a name of ours too."""
    service = client.pipelines
    found = service.pipeline_service_list_pipelines(filter=_name_filter(name), **_within(namespace)).pipelines or []
    if len(found) > 1:
        raise ClusterError(f"{client.base} has {len(found)} pipelines named {name}: give another name with --name")
    if not found:
        say(f"new pipeline {name}")
        new = api.V2beta1Pipeline(display_name=name, **_within(namespace))
        found = [service.pipeline_service_create_pipeline(new)]
    return str(found[0].pipeline_id)


def _create_run(client: Client, body: Any, experiment: str) -> str:
    unknown = (
        f"it is unknown whether the run was created: look for {body.display_name!r} in the experiment {experiment} "
        f"at {_ui(client)} before you submit again"
    )
    try:
        made = client.runs.run_service_create_run(body)
    except CallFailed as error:
        raise ClusterError(f"{error}; {unknown}" if error.unknown else str(error)) from error
    except KeyboardInterrupt:
        say(f"interrupted before the answer came; {unknown}")
        raise
    if not made.run_id:
        raise ClusterError(f"{client.base} answered without a run id; {unknown}")
    return str(made.run_id)


def _document(compiled: compiled_file.Package, no_cache: bool) -> dict[str, Any]:
    """The pipeline as a run takes it. kfp's own switch for caching does not reach the tasks inside an exit handler; this does."""
    spec = copy.deepcopy(compiled.spec)
    if no_cache:
        for dag in compiled_file.dags(spec):
            for task in dag.values():
                task["cachingOptions"] = {}
    return {"pipeline_spec": spec, "platform_spec": compiled.platform} if compiled.platform else spec


def _name_filter(name: str) -> str:
    return json.dumps({"predicates": [{"operation": 1, "key": "display_name", "stringValue": name}]})  # 1: equals


def _within(namespace: str | None) -> dict[str, str]:
    return {} if namespace is None else {"namespace": namespace}


def _ui(client: Client) -> str:
    return (os.environ.get("KF_PIPELINES_UI_ENDPOINT") or client.base).rstrip("/")
