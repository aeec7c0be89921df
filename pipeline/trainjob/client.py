"""What is asked of Kubernetes for one TrainJob: make, look, delete, read its pods. One line for whatever goes wrong."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from pipeline.errors import ClusterError
from pipeline.kubeflow import retry
from pipeline.trainjob.manifest import GROUP, PLURAL, VERSION

INSIDE = "KUBERNETES_SERVICE_HOST"
"""Set in every pod."""
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
ROLE = "give the run's service account the rights of pipeline/trainjob/role.yaml"


class JobError(ClusterError):
    """A request that failed. `status` is HTTP's, 0 where no answer came; `passing`: a later one may succeed."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status, self.passing = status, status == 0 or status == 429 or status >= 500


class Jobs:
    """TrainJobs of one namespace: that of the pod, or outside of a cluster, of the current kubeconfig."""

    def __init__(self) -> None:
        """Raises ClusterError outside of a cluster without a kubeconfig."""
        settings = client.Configuration()
        settings.retries = False  # a POST is never repeated in secret
        try:
            if INSIDE in os.environ:
                config.load_incluster_config(client_configuration=settings)  # reads the token again when a cluster replaces it
                self.namespace = NAMESPACE.read_text("utf-8").strip()
            else:
                config.load_kube_config(client_configuration=settings)
                self.namespace = str(config.list_kube_config_contexts()[1]["context"].get("namespace") or "default")
        except (config.ConfigException, OSError) as error:
            raise ClusterError(f"no Kubernetes to make a TrainJob in ({error}): this runs inside a Kubeflow task") from error
        api = client.ApiClient(settings)
        self.host = str(settings.host)
        self._custom, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def get(self, name: str) -> dict[str, Any] | None:
        """The TrainJob; None where there is none."""
        try:
            with self._said("get", name):
                answer = self._custom.get_namespaced_custom_object(*self._where(), name, _request_timeout=retry.TIMEOUT_S)
        except JobError as error:
            if error.status == 404:
                return None
            raise
        return dict(answer)

    def create(self, manifest: dict[str, Any]) -> bool:
        """Make it; False where it is there already. Fields that this cluster's Trainer does not know are refused by the cluster."""
        try:
            with self._said("create", manifest["metadata"]["name"]):
                self._custom.create_namespaced_custom_object(
                    *self._where(), manifest, field_validation="Strict", _request_timeout=retry.TIMEOUT_S
                )
        except JobError as error:
            if error.status == 409:
                return False
            raise
        return True

    def delete(self, name: str) -> None:
        """Delete it with its pods; nothing happens where there is none."""
        try:
            with self._said("delete", name):
                self._custom.delete_namespaced_custom_object(
                    *self._where(), name, propagation_policy="Foreground", _request_timeout=retry.TIMEOUT_S
                )
        except JobError as error:
            if error.status != 404:
                raise

    def pods(self, name: str) -> list[Any]:
        """Its pods."""
        with self._said("list the pods of", name):
            label = f"jobset.sigs.k8s.io/jobset-name={name}"
            return list(
                self._core.list_namespaced_pod(self.namespace, label_selector=label, _request_timeout=retry.TIMEOUT_S).items
            )

    def log(self, pod: str, container: str, lines: int, previous: bool) -> str:
        """The last `lines` of a pod's log, or of the container before its restart."""
        with self._said("read the log of", pod):
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=container, tail_lines=lines, previous=previous, _request_timeout=retry.TIMEOUT_S
            )
        return str(answer)

    def _where(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    @contextlib.contextmanager
    def _said(self, verb: str, name: str) -> Iterator[None]:
        what = f"cannot {verb} {name} in {self.namespace}"
        try:
            yield
        except client.ApiException as error:
            status = int(error.status or 0)
            cure = {
                401: f"not logged in: {ROLE}",
                403: f"not allowed: {ROLE}",
                404: "not found; for a TrainJob, Kubeflow Trainer 2.2 or newer must be installed",
                422: "refused: see docs/kubeflow.md, the cluster file",
            }.get(status, str(error.reason))
            raise JobError(f"{what} ({status}): {cure}{_words(error.body)}", status) from error
        except urllib3.exceptions.HTTPError as error:
            raise JobError(f"{what}: no answer from {self.host} ({type(error).__name__})", 0) from error


def _words(body: Any) -> str:
    """The server's own words, in one line."""
    try:
        message = " ".join(str(json.loads(body)["message"]).split())
    except (ValueError, KeyError, TypeError):
        return ""
    return f"; it says: {message[:300]}"
