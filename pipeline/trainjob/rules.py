"""What Kubernetes and Kubeflow Trainer refuse of a TrainJob, found when compiling instead of in the run, at train."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from components.common.errors import SettingsError

RESERVED = ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
"""How the Trainer tells the nodes of each other."""
MOST = {"variables of env and secrets": 128, "volumes": 128, "tolerations": 128, "image_pull_secrets": 64}
LONGEST_IMAGE = 500
DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
KEY = re.compile(rf"({DOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def check(job: dict[str, Any]) -> None:
    """Raises SettingsError with the setting of the cluster file that a cluster would refuse."""
    trainer = job["spec"]["trainer"]
    [patch] = job["spec"]["runtimePatches"]
    [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    variables = [entry["name"] for entry in trainer["env"]]
    if taken := sorted({*variables} & {*RESERVED}):
        raise SettingsError(
            f"env: {', '.join(taken)} is what Kubeflow Trainer tells the nodes itself: take it out of the cluster file"
        )
    secrets = [entry["name"] for entry in pod.get("imagePullSecrets", [])]
    _once("env and secrets: the variable", variables)
    _once("volumes: the mount_path", [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]])
    _once("image_pull_secrets: the name", secrets)
    for what, found in zip(MOST, (variables, pod["volumes"], pod.get("tolerations", []), secrets), strict=True):
        if len(found) > MOST[what]:
            raise SettingsError(f"{what}: {len(found)}, but a TrainJob takes {MOST[what]} at most")
    if len(trainer["image"]) > LONGEST_IMAGE:
        raise SettingsError(f"image: {len(trainer['image'])} characters, but a TrainJob takes {LONGEST_IMAGE} at most")
    _labels(job["metadata"])


def _once(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SettingsError(f"{what} {twice[0]} comes twice, which a TrainJob does not take: name it once for train")


def _labels(metadata: dict[str, Any]) -> None:
    """Labels and annotations of the pods: wrong ones would be found by nobody before the pods fail to appear."""
    for kind in ("labels", "annotations"):
        for key, value in metadata.get(kind, {}).items():
            if not KEY.fullmatch(key) or len(key.partition("/")[0]) > 253:
                raise SettingsError(f"{kind}: {key!r} is no key that Kubernetes takes: up to 63 characters, or DOMAIN/NAME")
            if kind == "labels" and not VALUE.fullmatch(value):
                raise SettingsError(f"labels: {key}: {value!r} is no label's value: up to 63 of letters, digits, '-', '_' and '.'")
