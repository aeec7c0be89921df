"""What is asked of Kubernetes for one TrainJob: make, look, delete, read its pods. One line for whatever goes wrong."""

import contextlib
import json
import os
import re
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
DENIAL = re.compile(r'admission webhook "([^"]+)" denied the request:? ?')
"""How a webhook's no begins, which comes with the 403 of missing rights. Who lacks rights is told `User "..." cannot ...`."""
LONGEST = 300
"""Characters that are passed on of the server's own words."""


class JobError(ClusterError):
    """A request that failed. `status` is HTTP's, 0 where no answer came; `passing`: a later one may succeed."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status, self.passing = status, status == 0 or status == 429 or status >= 500


class Jobs:
    """TrainJobs of one namespace: that of the pod, or outside of a cluster, of the current kubeconfig."""

    def __init__(self, timeout_s: tuple[float, float] | None = None) -> None:
        """`timeout_s` for a connection and each answer, instead of the usual. Raises ClusterError where there is no cluster."""
        self._timeout = timeout_s or retry.TIMEOUT_S
        settings = client.Configuration()
        settings.retries = False  # a POST is never repeated in secret
        try:
            if INSIDE in os.environ:
                config.load_incluster_config(client_configuration=settings)  # reads the token again when a cluster replaces it
                settings.proxy = None  # a proxy in the task's environment is for the world outside, not for the pod's own cluster
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
                answer = self._custom.get_namespaced_custom_object(*self._where(), name, _request_timeout=self._timeout)
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
                    *self._where(), manifest, field_validation="Strict", _request_timeout=self._timeout
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
                    *self._where(), name, propagation_policy="Foreground", _request_timeout=self._timeout
                )
        except JobError as error:
            if error.status != 404:
                raise

    def pods(self, name: str) -> list[Any]:
        """Its pods."""
        with self._said("list the pods of", name):
            label = f"jobset.sigs.k8s.io/jobset-name={name}"
            return list(self._core.list_namespaced_pod(self.namespace, label_selector=label, _request_timeout=self._timeout).items)

    def log(self, pod: str, container: str, lines: int, previous: bool) -> str:
        """The last `lines` of a pod's log, or of the container before its restart."""
        with self._said("read the log of", pod):
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=container, tail_lines=lines, previous=previous, _request_timeout=self._timeout
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
            status, said = int(error.status or 0), _words(error.body)
            cure = {
                401: f"not logged in: {ROLE}",
                403: _forbidden(said),
                404: "not found; for a TrainJob, Kubeflow Trainer 2.2 or newer must be installed",
                422: "refused: see docs/kubeflow.md, the cluster file",
            }.get(status, str(error.reason))
            reason = DENIAL.sub("", said, count=1)
            raise JobError(f"{what} ({status}): {cure}{reason and f'; it says: {reason}'}", status) from error
        except urllib3.exceptions.HTTPError as error:
            raise JobError(f"{what}: no answer from {self.host} ({type(error).__name__})", 0) from error


def _forbidden(said: str) -> str:
    """What a 403 asks for: rights, or a manifest that the cluster's rules allow (webhooks, quotas)."""
    if denial := DENIAL.match(said):
        return f"refused by the webhook {denial[1]}"
    if said and 'User "' not in said:
        return "refused by a rule of the cluster, not for missing rights"
    return f"not allowed: {ROLE}"


def _words(body: Any) -> str:
    """The server's own words, in one line; of a long one begin and end, since a refusal quotes the manifest before it says why."""
    try:
        message = " ".join(str(json.loads(body)["message"]).split())
    except (ValueError, KeyError, TypeError):
        return ""
    return message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
