"""Training on several nodes: the manifest of a Kubeflow Trainer TrainJob, from the same cluster file as the pipeline.

The runtime (torch-distributed) starts one pod a node and tells it where the others are in PET_ variables. It starts no launcher:
the command is `torchrun`, which reads them, around the step's own command line. What belongs to the container of the Trainer's
pod template (image, command, resources, environment) stands in spec.trainer, what belongs to its pod in spec.runtimePatches.

The same settings give the same bytes: what belongs to one run, its name and the file of its permanent failure, is added by `named`
when the run makes its TrainJob. Schema: trainer.kubeflow.org/v1alpha1 as of Trainer 2.2 to 2.4.
"""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components.common.errors import SettingsError
from components.common.progress import say
from components.common.settings import Settings
from components.common.settings import load as load_settings
from model.atomic import write_whole
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.cluster import load as load_cluster
from pipeline.kubeflow.cluster_sections import Pods
from pipeline.kubeflow.placement import CA_FOLDER, CA_VARIABLES
from pipeline.steps import STATE
from pipeline.task import file_modes, permanent_failure, threads, torchrun
from pipeline.trainjob.rules import check

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
LAUNCH = ["-m", "pipeline.cli"]
LONGEST = 46
"""Characters of a name: with `-node-0-999-abcde`, which makes a pod's name of it, it must stay within a host name's 63."""
NAME = re.compile(rf"[a-z]([-a-z0-9]{{0,{LONGEST - 2}}}[a-z0-9])?")
NODE = "node"
"""What the Trainer's runtimes call both the job and the container that trains."""
MANAGER = "dier.dev/dier"
"""Whose patch it is. The Trainer takes a path with a domain only."""


def manifest(cluster: Cluster, words: Sequence[str] = ()) -> dict[str, Any]:
    """The TrainJob that runs the step's command line `words` on every node, without what belongs to one run.

    Raises SettingsError for what the Trainer would refuse.
    """
    wanted = cluster.trainjob
    trainer = {
        "image": cluster.image,
        "command": ["torchrun"],
        "args": [*LAUNCH, *words],
        "numNodes": wanted.nodes,
        "numProcPerNode": cluster.train_processes,
        "resourcesPerNode": _resources(cluster),
        "env": _environment(cluster),
    }
    pods = _pods(cluster)
    metadata = _without_empty({"labels": pods.labels | wanted.labels, "annotations": dict(pods.annotations)})
    pod = _without_empty({"metadata": copy.deepcopy(metadata), "spec": _pod(cluster)})
    patch = {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": pod}}}]}}}
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": wanted.runtime_kind, "name": wanted.runtime},
        "trainer": _without_empty(trainer),
        "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": patch}],
    }
    if "train" in cluster.time_limits:
        spec["activeDeadlineSeconds"] = cluster.time_limits["train"]
    made = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainJob", "metadata": metadata, "spec": spec}
    check(made)
    return made


def named(job: dict[str, Any], name: str, failure_file: str | None = None) -> dict[str, Any]:
    """The same as the TrainJob `name`. Raises SettingsError for what is no name of one.

    A permanent failure is remembered in `failure_file`, a path inside the pods, since no exit code comes back from them.
    """
    if not NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name of a TrainJob: up to {LONGEST} of a-z, 0-9 and -, a letter first")
    made = copy.deepcopy(job)
    made["metadata"] = {"name": name, **made["metadata"]}
    if failure_file:
        made["spec"]["trainer"]["env"].append({"name": permanent_failure.VARIABLE, "value": failure_file})
    return made


def name_of(run_id: str) -> str:
    """What the TrainJob of a run is called: a task that is tried again finds it, and whoever ends the run ends it."""
    return f"dier-{run_id}"


def write(
    file: Path | None, cluster: Path, params: Path, overrides: Sequence[str], name: str, paths: dict[str, Path], *, allow_tag: bool
) -> None:
    """Print the manifest of one training, or write it to `file`. Raises SettingsError.

    `paths` are those of dataset, verdict, work and out as the pods see them: all on the claim of the work folder, or below
    another claim that train mounts.
    """
    wanted = load_cluster(cluster)
    wanted.check_image(allow_tag)
    if wanted.work.claim is None:
        raise SettingsError(
            f"{cluster} has no work.claim: the pods of a TrainJob find data and checkpoints there, and leave the model"
        )
    made = text(wanted, load_settings(params, list(overrides)), name, paths)
    if file is None:
        print(made, end="")
        return
    write_whole(file, made)
    say(f"wrote {file} ({wanted.trainjob.nodes} nodes with {wanted.train_processes} processes each)")


def text(cluster: Cluster, settings: Settings, name: str, paths: dict[str, Path]) -> str:
    """The manifest of one training as YAML."""
    sections = {key: settings.section(key).model_dump(mode="json", exclude_none=True) for key in ("model", "train")}
    words = ["train", "--params", json.dumps(sections)]
    for flag, path in paths.items():
        words += [f"--{flag}", str(path)]
    return yaml.safe_dump(named(manifest(cluster, words), name), sort_keys=False, width=120)


def mount_paths(job: dict[str, Any]) -> list[str]:
    """Where the pods of a manifest made here see volumes."""
    [patch] = job["spec"]["runtimePatches"]
    [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    [container] = node["template"]["spec"]["template"]["spec"]["containers"]
    return [str(mount["mountPath"]) for mount in container["volumeMounts"]]


def _resources(cluster: Cluster) -> dict[str, Any]:
    wanted = cluster.resources.get("train")
    requests, limits = {}, {}
    if wanted:
        requests = {"cpu": wanted.cpu_request, "memory": wanted.memory_request}
        limits = {"cpu": wanted.cpu_limit, "memory": wanted.memory_limit}
    if cluster.gpu.count and cluster.gpu.covers("train"):
        # in both: with limits alone the Trainer's torch plugin falls back to one process a node
        requests[cluster.gpu.type] = limits[cluster.gpu.type] = str(cluster.gpu.count)
    return _without_empty({"requests": _without_empty(requests), "limits": _without_empty(limits)})


def _environment(cluster: Cluster) -> list[dict[str, Any]]:
    values = {torchrun.SHUTDOWN: torchrun.SHUTDOWN_S, file_modes.VARIABLE: file_modes.IN_TASKS} | cluster.environment()
    if cluster.certificate_authority:
        values |= dict.fromkeys(CA_VARIABLES, f"{CA_FOLDER}/{cluster.certificate_authority.key}")
    wanted = cluster.resources.get("train")
    if wanted and wanted.cpu_request:
        values.setdefault(threads.REQUEST, wanted.cpu_request)
    entries: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
    for secret in cluster.secrets:
        if secret.covers("train"):
            for key, variable in secret.env.items():
                reference = {"name": secret.name, "key": key, "optional": secret.optional}
                entries.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    return entries


def _pod(cluster: Cluster) -> dict[str, Any]:
    volumes, mounts = _volumes(cluster)
    container = {
        "name": NODE,
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    tolerations = [
        toleration.model_dump(exclude={"steps"}, exclude_none=True)
        for toleration in cluster.tolerations
        if toleration.covers("train")
    ]
    pod = {
        "serviceAccountName": cluster.trainjob.service_account,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": cluster.node_selector.of("train"),
        "affinity": _affinity(_pods(cluster)),
        "tolerations": tolerations,
        "securityContext": _security(cluster),
        "volumes": volumes,
        "containers": [container],
    }
    return _without_empty(pod)


def _pods(cluster: Cluster) -> Pods:
    """What every pod of train carries."""
    return cluster.pods if cluster.pods.covers("train") else Pods()


def _affinity(pods: Pods) -> dict[str, Any]:
    """Conditions that a node must meet, all of them."""
    if not pods.node_affinity:
        return {}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [one.condition() for one in pods.node_affinity]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _security(cluster: Cluster) -> dict[str, Any]:
    """Who the pods run as; what is null is left to the cluster."""
    security = cluster.security
    found: dict[str, Any] = {"runAsUser": security.run_as_user, "runAsGroup": security.run_as_group, "runAsNonRoot": True}
    if security.run_as_group:  # not for null and 0: OpenShift gives volumes a group of its own, and refuses another
        found |= {"fsGroup": security.run_as_group, "fsGroupChangePolicy": "OnRootMismatch"}
    return _without_empty(found)


def _volumes(cluster: Cluster) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """/state, /dev/shm, the certificate authority, and the claims that train sees.

    Names of our own: a claim's may hold dots, which a volume's may not, and a runtime's volume of the same name would be replaced.
    """
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []

    def add(name: str, path: str, source: dict[str, Any], sub_path: str = "") -> None:
        volumes.append({"name": f"dier-{name}", **source})
        mounts.append(_without_empty({"name": f"dier-{name}", "mountPath": path, "subPath": sub_path}))

    claim = cluster.work.claim
    work = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    add("work", STATE, work, cluster.work.sub_path if claim else "")
    if cluster.shared_memory:
        add("shared-memory", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory}})  # noqa: S108
    if cluster.certificate_authority:
        add("certificate-authority", CA_FOLDER, {"configMap": {"name": cluster.certificate_authority.config_map}})
    for number, volume in enumerate(cluster.volumes):
        if volume.covers("train") or cluster.holds_dataset(volume.mount_path):
            source = {"persistentVolumeClaim": {"claimName": volume.claim}}
            add(f"volume-{number}", volume.mount_path, source, volume.sub_path)
    return volumes, mounts


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}
