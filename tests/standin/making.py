"""From the driver's patch to a pod: environment filled in, launcher's volumes added, words that Kubernetes itself replaces."""

import re
import uuid
from dataclasses import replace
from typing import Any

from tests.standin.clock import Clock
from tests.standin.cluster import Cluster
from tests.standin.driver import Patch
from tests.standin.errors import PodRefused
from tests.standin.pod import SCRATCH, Pod, Volume, admit
from tests.standin.proxy import API, KUBERNETES, METADATA

FIELD = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
VARIABLE = re.compile(r"\$(\$)?\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


def make(
    patch: Patch,
    *,
    name: str,
    node: str,
    run_id: str,
    run_name: str,
    task: str,
    attempt: int,
    retried: bool,
    cluster: Cluster,
    clock: Clock,
) -> Pod:
    """The pod of one try, mounted. Raises PodRefused, or PodStuck where it cannot start."""
    # a task's own win over the server's: Argo 4.0.8 workflow/controller/workflowpod.go:906 copies them last
    labels = {
        "pipeline/runid": run_id,  # KFP 2.17.0 backend/src/apiserver/template/v2_template.go:420
        "pipelines.kubeflow.org/v2_component": "true",
        "workflows.argoproj.io/workflow": run_name,
        "workflows.argoproj.io/completed": "false",
    } | patch.labels
    annotations = {"pipelines.kubeflow.org/v2_component": "true", "workflows.argoproj.io/node-name": node} | patch.annotations
    volumes = [Volume(volume, path, "emptyDir") for volume, path in SCRATCH.items()]
    pod = Pod(
        name=name,
        node=node,
        run_id=run_id,
        task=task,
        attempt=attempt,
        image=patch.image,
        command=list(patch.words),
        env={},
        volumes=volumes + [replace(volume) for volume in patch.volumes],
        labels=labels,
        annotations=annotations,
        security=dict(patch.security),
        resources=patch.resources,
        patch=patch.rest,
        deadline=patch.deadline,
        executor_input=_copy(patch.executor_input),
        clock=clock,
    )
    admit(pod)
    facts = {"metadata.name": name, "metadata.uid": str(uuid.uuid4()), "metadata.namespace": "kubeflow", "spec.nodeName": "node"}
    pod.env = {
        "KUBERNETES_SERVICE_HOST": KUBERNETES,
        "KUBERNETES_SERVICE_PORT": "443",
        "METADATA_GRPC_SERVICE_HOST": METADATA,
        "ML_PIPELINE_SERVICE_HOST": API,
        "KFP_POD_NAME": name,  # KFP 2.17.0 backend/src/v2/compiler/argocompiler/common.go:42
        "KFP_POD_UID": facts["metadata.uid"],
    }
    if retried:  # KFP 2.17.0 backend/src/v2/compiler/argocompiler/container.go:587
        pod.env["KFP_RETRY_INDEX"] = str(attempt)
    for one in patch.env:
        value = _value(one, pod, facts, cluster)
        if value is not None:
            pod.env[one["name"]] = value
    # Kubernetes 1.34 pkg/kubelet/container/helpers.go, ExpandContainerCommandAndArgs: $(NAME) of the container's own environment
    pod.command = [expanded(word, pod.env) for word in pod.command]
    if not any(volume.path == "/tmp" for volume in pod.volumes):
        pod.volumes.append(Volume("root-tmp", "/tmp", "emptyDir"))  # of the container's own file system
    cluster.mount(pod)
    return pod


def expanded(word: str, env: dict[str, str]) -> str:
    """`$(NAME)` where the container has it, else as it is; `$$(NAME)` is the text `$(NAME)`."""
    return VARIABLE.sub(lambda found: found[0][1:] if found[1] else env.get(found[2], found[0]), word)


def _value(one: dict[str, Any], pod: Pod, facts: dict[str, str], cluster: Cluster) -> str | None:
    if "value" in one:
        return expanded(one["value"], pod.env)
    if "ref" in one:
        ref = one["ref"]
        return cluster.value(ref["kind"], ref["name"], ref["key"], ref["optional"])
    path = one["fieldPath"]
    if found := FIELD.match(path):
        return (pod.labels if found[1] == "labels" else pod.annotations).get(found[2], "")
    if path not in facts:
        raise PodRefused(
            f'Pod "{pod.name}" is invalid: spec.containers[0].env.valueFrom.fieldRef.fieldPath: Unsupported value: "{path}"'
        )
    return facts[path]


def _copy(value: Any) -> Any:
    """Of dicts and lists: each try changes its own."""
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value
