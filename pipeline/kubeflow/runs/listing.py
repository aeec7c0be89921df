"""`dier runs`: the newest runs of a cluster, with their version, and which step of them failed."""

from itertools import islice
from typing import Any, Unpack

from pipeline.kubeflow.api.client import PAGE, Client, every
from pipeline.kubeflow.api.workflow import workflow
from pipeline.kubeflow.failure import failed_pod, how_it_ended
from pipeline.kubeflow.runs import versions
from pipeline.kubeflow.runs.connection import NOT_EQUALS, Connection, connect, experiment_id, where, within
from pipeline.kubeflow.runs.table import table, when

HEAD = ("ID", "NAME", "VERSION", "STATE", "STARTED", "ENDED", "FAILED STEP")


def runs(limit: int, experiment: str | None, **connection: Unpack[Connection]) -> str:
    """The newest `limit` runs, of all experiments or of one, as a table. Times are in UTC."""
    client, namespace = connect(connection), connection["namespace"]
    within_one = (
        within(namespace) if experiment is None else {"experiment_id": experiment_id(client, experiment, namespace, make=False)}
    )
    found = _newest(client, limit, within_one)
    names = versions.names_of(client, [one.pipeline_version_reference for one in found])
    rows = [
        (
            one.run_id,
            one.display_name,
            names.get(one.pipeline_version_reference.pipeline_version_id, "-") if one.pipeline_version_reference else "-",
            how_it_ended(one) if one.state else "-",
            when(one.created_at),
            when(one.finished_at),
            _failed_step(client, one),
        )
        for one in found
    ]
    return table(HEAD, rows, "no runs; dier submit starts one")


def _newest(client: Client, limit: int, within_one: dict[str, Any]) -> list[Any]:
    ask, kept = client.runs.run_service_list_runs, where("storage_state", "ARCHIVED", NOT_EQUALS)
    newest = every(ask, "runs", page=min(limit, PAGE), sort_by="created_at desc", filter=kept, **within_one)
    return list(islice(newest, limit))


def _failed_step(client: Client, run: Any) -> str:
    """Asked of failed runs alone: it takes a request each. Of one that was terminated it is only what was cut off."""
    pod = failed_pod(workflow(client, run.run_id)) if run.state and how_it_ended(run) == "FAILED" else None
    return pod.task if pod else "-"
