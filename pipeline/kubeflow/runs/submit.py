"""`dier submit`: a run of the compiled pipeline on a cluster, as a run of its stored version.

What can be checked without the cluster is checked first. A run is asked for exactly once: where the answer is lost, the person
is told to look before asking again, since nobody else can know.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import kfp_server_api as api

from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import argument_limits, compiled_file
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow.api.client import Client
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.runs import versions
from pipeline.kubeflow.runs.connection import Connection, connect, experiment_id
from pipeline.kubeflow.runs.wait import wait_for


def submit(
    pipeline: Path,
    *,
    cluster: Path,
    pipeline_name: str,
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
    compiled = versions.read(pipeline, allow_tag)
    arguments = compiled_file.arguments(compiled, overrides)
    argument_limits.check_run(compiled, arguments)
    client, namespace = connect(connection), connection["namespace"]
    version = versions.stored(client, compiled, pipeline_name, namespace, no_cache=no_cache)
    name = run_name or f"{compiled.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    body = api.V2beta1Run(
        experiment_id=experiment_id(client, experiment, namespace),
        display_name=name,
        pipeline_version_reference=version.reference,
        runtime_config=api.V2beta1RuntimeConfig(parameters=arguments),
        service_account=service_account,
    )
    run_id = _create_run(client, body, experiment)
    url = client.run_page(run_id)
    print(f"run {run_id} ({name}) of version {version.name}\n{url}", flush=True)
    if wait:
        wait_for(client, run_id, compiled.steps, url, namespace)
    return 0


def _create_run(client: Client, body: Any, experiment: str) -> str:
    unknown = (
        f"it is unknown whether the run was created: look for {body.display_name!r} in the experiment {experiment} "
        f"at {client.ui} before you submit again"
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
