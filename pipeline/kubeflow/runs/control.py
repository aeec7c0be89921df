"""`dier retry`, `dier terminate` and `dier logs`: what is said to a run that is there."""

from collections.abc import Iterator
from typing import Any, Unpack

from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import compiled_file
from pipeline.kubeflow.api.client import Client
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.api.logs import lines, read_log
from pipeline.kubeflow.api.workflow import DRIVER, Pod, Workflow, workflow
from pipeline.kubeflow.failure import failed_pod, how_it_ended
from pipeline.kubeflow.runs.connection import Connection, connect, find_run
from pipeline.kubeflow.runs.wait import ENDS, wait_for

RETRIED = ("FAILED", "CANCELED")
"""2.17.0, backend/src/common/util/workflow.go:201: the workflow must be Failed or Error; one that was terminated is Failed."""


def retry_run(run: str, *, wait: bool, **connection: Unpack[Connection]) -> int:
    """Run again what failed of the run, and what stands after it; steps that succeeded stay. 0 as for submit.

    Raises ClusterError where the run did not fail.
    """
    client, namespace = connect(connection), connection["namespace"]
    found = find_run(client, run, namespace)
    if found.state not in RETRIED:
        raise ClusterError(f"run {found.run_id} is {found.state}: only a run that failed or was terminated can be tried again")
    _once(client.runs.run_service_retry_run, found.run_id)
    print(f"run {found.run_id} ({found.display_name}) goes on\n{client.run_page(found.run_id)}", flush=True)
    if wait:
        wait_for(client, found.run_id, _steps(client, found), client.run_page(found.run_id), namespace)
    return 0


def terminate(run: str, **connection: Unpack[Connection]) -> None:
    """End a run that is under way, and its training's run in MLflow where MLFLOW_TRACKING_URI is set."""
    from components.tracking.close_run import close_mlflow_run

    client = connect(connection)
    found = find_run(client, run, connection["namespace"])
    if found.state in ENDS:
        print(f"run {found.run_id} ({found.display_name}) has ended already: {how_it_ended(found)}")
    elif found.state == "CANCELING":
        print(f"run {found.run_id} ({found.display_name}) is being terminated already")
    else:
        _once(client.runs.run_service_terminate_run, found.run_id)
        print(f"run {found.run_id} ({found.display_name}) is being terminated\n{client.run_page(found.run_id)}")
    for closed in close_mlflow_run(found.run_id):
        print(f"MLflow's run {closed} is KILLED")


def logs(run: str, step: str | None, **connection: Unpack[Connection]) -> Iterator[str]:
    """Lines of a step's log, or of the failed one's; of a loop's step each round's. Raises ClusterError where there is none."""
    client, namespace = connect(connection), connection["namespace"]
    found = find_run(client, run, namespace)
    seen = workflow(client, found.run_id)
    pods = _pods(seen, found, step)
    for pod in pods:
        text = read_log(client, found.run_id, seen, pod, namespace)
        if len(pods) > 1:
            yield f"--- {pod.task} {pod.iteration if pod.iteration is not None else ''} ({pod.name}) ---"
        yield from lines(text.rstrip("\n"))


def _pods(seen: Workflow, run: Any, step: str | None) -> list[Pod]:
    """Those whose logs are meant: the last try of each."""
    tries = seen.last_tries()
    there = ", ".join(f"{task}: {phase}" for task, phase in {pod.task: pod.phase for pod in tries if not pod.is_driver}.items())
    if step is None:
        failed = failed_pod(seen)
        if failed is None:
            raise ClusterError(
                f"no step of run {run.run_id} has failed: name one ({there or f'none has started, the run is {run.state}'})"
            )
        say(f"{failed.task} failed:")
        return [failed]
    pods = [pod for pod in tries if pod.task == step]
    if not pods and any(pod.task == step + DRIVER and not pod.failed for pod in tries):
        raise ClusterError(
            f"{step} of run {run.run_id} has run nothing here: its result came from the cache, or it is about to start"
        )
    if not pods:
        raise ClusterError(f"run {run.run_id} has no step {step} that has started: it has {there or 'none'}")
    return sorted(pods, key=lambda pod: pod.iteration or 0)


def _once(ask: Any, run_id: str) -> None:
    """Say it to the run, once."""
    try:
        ask(run_id)
    except CallFailed as error:
        raise ClusterError(
            f"{error}; it is unknown whether it was done: dier runs shows it" if error.unknown else str(error)
        ) from error


def _steps(client: Client, run: Any) -> tuple[str, ...]:
    """Names of the tasks that run a container, by the run's own pipeline."""
    reference = run.pipeline_version_reference
    document = run.pipeline_spec
    if reference is not None:
        get = client.pipelines.pipeline_service_get_pipeline_version
        document = get(reference.pipeline_id, reference.pipeline_version_id).pipeline_spec
    spec = (document or {}).get("pipeline_spec", document)
    return tuple(compiled_file.steps(spec)) if spec else ()
