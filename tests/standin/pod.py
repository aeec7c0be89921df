"""A pod of a task as Kubernetes gets it, and what Kubernetes says of it before anything runs."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.standin.clock import Clock
from tests.standin.errors import PodRefused

SCRATCH = {
    "kfp-launcher": "/kfp-launcher",
    "gcs-scratch": "/gcs",
    "s3-scratch": "/s3",
    "minio-scratch": "/minio",
    "dot-local-scratch": "/.local",
    "dot-cache-scratch": "/.cache",
    "dot-config-scratch": "/.config",
}
"""KFP 2.17.0 backend/src/v2/compiler/argocompiler/container.go:468: an emptyDir each."""
LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
"""A DNS label, which a volume's name must be: no dots, 63 letters at most. Kubernetes 1.34 pkg/apis/core/validation."""
LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")


@dataclass
class Volume:
    """A volume and where the container sees it."""

    name: str
    path: str
    kind: str
    """emptyDir, claim, configMap, secret, ephemeral or workspace."""
    source: str = ""
    """The claim, ConfigMap or Secret."""
    sub_path: str = ""
    medium: str = ""
    size_limit: str = ""
    optional: bool = False
    host: Path | None = None
    """Its folder on this machine, once the pod is made."""


@dataclass
class Ended:
    """How the container's process ended, or what ended the pod."""

    code: int
    log: str = ""
    deleted: bool = False
    """Somebody deleted the pod, or its node is gone."""
    oom: bool = False
    deadline: bool = False


@dataclass
class Pod:
    """Everything resolved: what Kubernetes would run."""

    name: str
    node: str
    run_id: str
    task: str
    attempt: int
    image: str
    command: list[str]
    """The step's words after the launcher has filled them in."""
    env: dict[str, str]
    volumes: list[Volume]
    labels: dict[str, str]
    annotations: dict[str, str]
    security: dict[str, Any]
    resources: dict[str, Any] = field(default_factory=dict)
    patch: dict[str, Any] = field(default_factory=dict)
    """The rest of what was asked for: tolerations, nodeSelector, affinity, imagePullPolicy, imagePullSecrets."""
    deadline: float | None = None
    executor_input: dict[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set where Kubernetes sends SIGTERM."""
    deleted: bool = False
    on_exit: bool = False
    clock: Clock = field(default_factory=Clock)
    umask: int = 0
    """Argo 4.0.8 cmd/argoexec/commands/emissary.go:56: what a step makes, everybody may write, unless it says otherwise."""

    @property
    def user(self) -> int | None:
        found = self.security.get("runAsUser")
        return None if found is None else int(found)

    @property
    def group(self) -> int | None:
        found = self.security.get("runAsGroup")
        return None if found is None else int(found)

    @property
    def owner(self) -> tuple[int, int]:
        """Of what the launcher makes: the image's user, 10001, where none is given; the group 0 where a user is given alone."""
        user = 10001 if self.user is None else self.user
        return user, (self.group if self.group is not None else 10001 if self.user is None else 0)

    def local(self, path: str) -> Path:
        """Where a path of the container lies on this machine."""
        for volume in sorted(self.volumes, key=lambda one: -len(one.path)):
            if volume.host is not None and (path == volume.path or path.startswith(volume.path.rstrip("/") + "/")):
                return volume.host / path[len(volume.path) :].lstrip("/")
        raise LookupError(f"{path} is on no volume of {self.name}")


Run = Callable[[Pod], Ended]


def admit(pod: Pod) -> None:
    """What the Kubernetes API server checks. Raises PodRefused."""
    for index, volume in enumerate(pod.volumes):
        if "." in volume.name:
            # Kubernetes 1.34 pkg/apis/core/validation/validation.go, ValidateDNS1123Label of volumes: seen on a cluster, row 14
            raise PodRefused(
                f'Pod "{pod.name}" is invalid: spec.volumes[{index}].name: Invalid value: "{volume.name}": must not contain dots'
            )
        if not LABEL.match(volume.name):
            raise PodRefused(
                f'Pod "{pod.name}" is invalid: spec.volumes[{index}].name: Invalid value: "{volume.name}": '
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
            )
    places: dict[str, str] = {}
    for volume in pod.volumes:
        if volume.path in places:
            raise PodRefused(f'Pod "{pod.name}" is invalid: spec.containers[0].volumeMounts: "{volume.path}": must be unique')
        places[volume.path] = volume.name
    kinds: dict[str, tuple[str, str]] = {}
    for volume in pod.volumes:
        if kinds.setdefault(volume.name, (volume.kind, volume.source)) != (volume.kind, volume.source):
            raise PodRefused(f'Pod "{pod.name}" is invalid: spec.volumes: Duplicate value: "{volume.name}"')
    for key, value in pod.labels.items():
        if len(value) > 63 or not LABEL_VALUE.match(value):
            raise PodRefused(f'Pod "{pod.name}" is invalid: metadata.labels: Invalid value: "{value}" of {key}')
    _restricted(pod)


def _restricted(pod: Pod) -> None:
    """Pod Security `restricted`: not root, by the manifest's own words. Capabilities, privileges and seccomp come from Kubeflow.

    KFP 2.17.0 backend/src/v2/compiler/argocompiler/security_context.go:84: the compiler sets no runAsNonRoot for a step's pod.
    """
    if pod.security.get("runAsNonRoot") is not True:
        raise PodRefused(
            f'pods "{pod.name}" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true '
            '(pod or container "main" must set securityContext.runAsNonRoot=true)'
        )
    if pod.user == 0:
        raise PodRefused(
            f'pods "{pod.name}" is forbidden: violates PodSecurity "restricted:latest": runAsUser=0 '
            '(container "main" must not set runAsUser=0)'
        )
