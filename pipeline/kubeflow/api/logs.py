"""The log of a pod of a run, by whichever way works through the address at hand: the API server's, or the UI's in front of it.

| way | through | while it runs | after it |
|---|---|---|---|
| `main-logs`, Argo's archive of it | both | no | where Argo archives logs (Kubeflow's manifests do) |
| the API server's log | the API server | yes | from the pod or the archive |
| the UI's log | the UI | yes | from the pod or the archive |
| `executor-logs`, the artifact of Kubeflow's launcher | the UI | no | where PUBLISH_LOGS is on |
"""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import quote, urlsplit

from pipeline.errors import ClusterError
from pipeline.kubeflow.api.client import V2, Client
from pipeline.kubeflow.api.errors import CallFailed
from pipeline.kubeflow.api.workflow import Pod, Workflow

NO_RIGHT = (401, 403)
SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}
"""The UI's name of a store, by the scheme of its URIs."""


def read_log(client: Client, run_id: str, workflow: Workflow, pod: Pod, namespace: str | None = None) -> str:
    """What the pod printed. Raises ClusterError where no way leads to it."""
    run, name = quote(run_id, safe=""), quote(pod.name, safe="")
    ways: list[Callable[[], bytes | None]] = [
        lambda: _archived(client, f"{V2}/runs/{run}/nodes/{name}/artifacts/main-logs:read"),
        lambda: _server_log(client, f"/apis/v1alpha1/runs/{run}/nodes/{name}/log"),
        lambda: _page_log(client, run_id, pod.name, namespace),
        lambda: _published(client, workflow.log_uri(pod), namespace),
    ]
    if not pod.finished:
        ways = ways[1:3]
    refusal = None
    for way in ways:
        try:
            found = way()
        except CallFailed as error:
            if error.status == 0 and error.passing:
                raise  # nobody there, or nobody who answers: another way would take as long
            refusal = error if error.status in NO_RIGHT else refusal
            continue
        if found is not None:
            return found.decode("utf-8", errors="replace")
    if refusal is not None:
        raise refusal
    raise ClusterError(
        f"no log of {pod.task}: its pod {pod.name} is gone, or is not there yet, and {client.base} keeps no copy of it"
    )


def _archived(client: Client, path: str) -> bytes | None:
    """2.17.0, server/run_artifact_server.go:39. The API server's word for nothing there is 404, in older versions 500."""
    with suppress(ValueError, TypeError):
        return base64.b64decode(client.json(path)["data"], validate=True)
    return None


def _server_log(client: Client, path: str) -> bytes | None:
    """The server says 200 before it looks for the log, and then writes its error where the log would be (run_log_server.go:56)."""
    found = client.bytes(path)
    if _is_page(found):  # the UI in front knows no such path
        return None
    with suppress(ValueError):
        return None if "error_message" in json.loads(found) else found
    return found


def _page_log(client: Client, run_id: str, pod: str, namespace: str | None) -> bytes | None:
    """Frontend 2.17.0, frontend/server/handlers/pod-logs.ts:80."""
    query = {"podname": pod, "runid": run_id, **({"podnamespace": namespace} if namespace else {})}
    found = client.bytes("/k8s/pod/logs", query)
    return None if _is_page(found) or found.startswith(b"Could not get main container logs") else found


def _published(client: Client, uri: str | None, namespace: str | None) -> bytes | None:
    """Frontend 2.17.0, frontend/src/lib/Apis.ts:334."""
    parts = urlsplit(uri or "")
    if parts.scheme not in SOURCES:
        return None
    place = {"source": SOURCES[parts.scheme], "bucket": parts.netloc, "key": parts.path.lstrip("/")}
    found = client.bytes("/artifacts/get", {**place, **({"namespace": namespace} if namespace else {})})
    return None if _is_page(found) else found


def _is_page(found: bytes) -> bool:
    return found.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def lines(text: str) -> Iterator[str]:
    """The lines of a log, each free of what could steer a terminal; of a progress bar's line the last state."""
    for line in text.split("\n"):
        shown = line.rstrip("\r").rpartition("\r")[2]
        yield "".join(char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode() for char in shown)
