"""The life of a TrainJob that really runs: pods named and told as the Trainer and JobSet do, restarts, conditions, an end.

What a pod's container does is up to the caller's `runner`, which starts it and gives something to wait for: a process, a container.
`trainer@8c0f505`, `jobset@08dfbdf`: github.com/kubeflow/trainer and kubernetes-sigs/jobset at those commits (August 2026).
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

BACKOFF_LIMIT = 6
"""Of a Kubernetes Job that says nothing: restarts of all its pods together."""
SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True)
class Node:
    """A pod that is to start."""

    pod: str
    rank: int
    host: str
    """What its peers call it."""
    hosts: tuple[str, ...]
    """Those of all nodes."""
    image: str
    command: list[str]
    args: list[str]
    env: dict[str, str]
    mounts: list[tuple[dict[str, Any], str, str]]
    """The volume, where it is mounted, and which folder of it."""
    spec: dict[str, Any]
    """The patch of the pod's spec."""


class Running(Protocol):
    """A container that runs."""

    def wait(self) -> int: ...
    def kill(self) -> None: ...
    def log(self) -> str: ...


Runner = Callable[[Node], Running]


@dataclass
class Pod:
    """One pod of a node; after it is deleted the node gets another."""

    name: str
    phase: str = "Pending"
    restarts: int = 0
    code: int | None = None
    before: int | None = None
    deleted: bool = False
    running: Running | None = None
    logs: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As Kubernetes shows it."""

        def end(code: int | None) -> dict[str, Any]:
            return {} if code is None else {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}

        status = {"name": "node", "image": "i", "imageID": "i", "ready": self.phase == "Running", "restartCount": self.restarts}
        status |= {"state": end(self.code), "lastState": end(self.before)}
        return {"metadata": {"name": self.name}, "status": {"phase": self.phase, "containerStatuses": [status]}}


class Life:
    """From the creation of a TrainJob to its end, in threads: one a node."""

    def __init__(self, job: dict[str, Any], runner: Runner, secrets: dict[str, dict[str, str]], backoff_s: float) -> None:
        self.job, self.runner, self.secrets, self.backoff_s = job, runner, secrets, backoff_s
        self.name, self.count = job["metadata"]["name"], job["spec"]["trainer"].get("numNodes", 1)
        self.conditions: list[dict[str, str]] = []
        self.pods: dict[int, Pod] = {}
        self.gone: list[Pod] = []
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._keep, args=(rank,), daemon=True) for rank in range(self.count)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Somebody deleted the TrainJob: its pods go with it."""
        self._stop()
        for thread in self._threads:
            thread.join()

    def delete_pod(self, name: str) -> None:
        """Kill a pod as an eviction does; the Job makes another for the same node, whose peers notice by themselves."""
        pod = self.find(name)
        pod.deleted = True
        if pod.running:
            pod.running.kill()

    def find(self, name: str) -> Pod:
        """The pod of this name, also one that was replaced."""
        return next(pod for pod in [*self.pods.values(), *self.gone] if pod.name == name)

    def log(self, name: str, previous: bool) -> str:
        """Of the container that runs or ran last, or of the one before."""
        pod = self.find(name)
        if previous:
            return pod.logs[-1] if pod.code is None else pod.logs[-2]
        return pod.running.log() if pod.running else pod.logs[-1] if pod.logs else ""

    def _keep(self, rank: int) -> None:
        """Run the node until it succeeds: a container that fails starts again in its pod (OnFailure, which JobSet sets where a
        runtime says nothing: jobset@08dfbdf pkg/webhooks/jobset_webhook.go:126), a pod that is deleted is replaced.
        """
        pod = self._new_pod(rank)
        while not self._over.is_set():
            if pod.deleted:
                self.gone.append(pod)
                pod = self._new_pod(rank)
                self._over.wait(self.backoff_s)  # another node has to be found, volumes mounted
            running = self.runner(self._node(pod, rank))
            pod.running, pod.phase, pod.code = running, "Running", None
            if self._over.is_set():
                running.kill()
            code = running.wait()
            pod.logs.append(running.log())
            pod.running = None
            if pod.deleted or self._over.is_set():
                continue
            pod.code = code
            if code == 0:
                pod.phase = "Succeeded"
                self._succeeded()
                return
            if not self._restart(pod):
                return
            pod.before, pod.code, pod.restarts = code, None, pod.restarts + 1

    def _new_pod(self, rank: int) -> Pod:
        """jobset@08dfbdf pkg/util/placement/placement.go:20, and five letters of the Job controller's."""
        suffix = "".join(random.choices(SUFFIX, k=5))
        self.pods[rank] = Pod(f"{self.name}-node-0-{rank}-{suffix}")
        return self.pods[rank]

    def _restart(self, pod: Pod) -> bool:
        """Whether the container may start again; the wait before it is the kubelet's."""
        with self._lock:
            if sum(one.restarts for one in self.pods.values()) >= BACKOFF_LIMIT and not self._over.is_set():
                pod.phase = "Failed"
                job = f"jobset failed due to one or more job failures (first failed job: {self.name}-node-0)"
                self._condition("Failed", "FailedJobs", job)  # jobset@08dfbdf pkg/controllers/failure_policy.go:59
                self._stop()
                return False
        self._over.wait(self.backoff_s)
        return True

    def _succeeded(self) -> None:
        with self._lock:
            if all(pod.phase == "Succeeded" for pod in self.pods.values()) and len(self.pods) == self.count:
                # jobset@08dfbdf pkg/constants/constants.go:61; trainer@8c0f505 plugins/jobset/jobset.go, Status: passed on as it is
                self._condition("Complete", "AllJobsCompleted", "jobset completed successfully")

    def _stop(self) -> None:
        self._over.set()
        for pod in self.pods.values():
            if pod.running:
                pod.running.kill()

    def _condition(self, kind: str, reason: str, message: str) -> None:
        self.conditions.append({"type": kind, "status": "True", "reason": reason, "message": message})

    def _node(self, pod: Pod, rank: int) -> Node:
        trainer = self.job["spec"]["trainer"]
        spec = self._pod_patch()
        [container] = spec.get("containers", [{}])
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        mounts = [(volumes[one["name"]], one["mountPath"], one.get("subPath", "")) for one in container.get("volumeMounts", [])]
        hosts = tuple(f"{self.name}-node-0-{number}.{self.name}" for number in range(self.count))
        return Node(
            pod=pod.name,
            rank=rank,
            host=hosts[rank],
            hosts=hosts,
            image=trainer["image"],
            command=trainer["command"],
            args=trainer["args"],
            env=self._environment(trainer) | self._told(trainer, rank),
            mounts=mounts,
            spec=spec,
        )

    def _pod_patch(self) -> dict[str, Any]:
        [patch] = self.job["spec"]["runtimePatches"]
        [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        return dict(node["template"]["spec"]["template"]["spec"])

    def _environment(self, trainer: dict[str, Any]) -> dict[str, str]:
        found = {}
        for entry in trainer.get("env", []):
            if "value" in entry:
                found[entry["name"]] = entry["value"]
                continue
            reference = entry["valueFrom"]["secretKeyRef"]
            value = self.secrets.get(reference["name"], {}).get(reference["key"])
            assert value is not None or reference.get("optional"), f"no Secret {reference['name']}: the pod would not start"
            found |= {} if value is None else {entry["name"]: value}
        return found

    def _told(self, trainer: dict[str, Any], rank: int) -> dict[str, str]:
        """trainer@8c0f505 pkg/runtime/framework/plugins/torch/torch.go:149-173."""
        return {
            "PET_NNODES": str(self.count),
            "PET_NPROC_PER_NODE": str(trainer.get("numProcPerNode", "auto")),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": f"{self.name}-node-0-0.{self.name}",
            "PET_MASTER_PORT": "29500",
        }
