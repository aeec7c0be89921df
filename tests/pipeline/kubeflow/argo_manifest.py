"""A workflow as Argo keeps it and Kubeflow's v1beta1 API gives it, of pods that a test names, or of an engine's nodes.

Names of nodes follow Kubeflow's compiler (kubeflow/pipelines 2.17.0, backend/src/v2/compiler/argocompiler/container.go:187-414) and
Argo 4.0 (workflow/util/pod_name.go:48, workflow_types.go NodeID).
"""

import json
from dataclasses import dataclass
from typing import Any

WORKFLOW = "dier-7x2kq"


def fnv32a(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


@dataclass(frozen=True)
class Tried:
    """A pod of a task."""

    task: str
    phase: str = "Succeeded"
    log: str = ""
    message: str = ""
    attempt: int | None = None
    """None: no retry strategy stands above it."""
    iteration: int | None = None
    finished: str = "2026-11-28T00:10:00Z"
    driver: bool = False
    folder: str = "root"

    @property
    def place(self) -> str:
        round_ = "" if self.iteration is None else f".for-loop-1.iteration-item({self.iteration}:{self.iteration})"
        return f"{WORKFLOW}.{self.folder}{round_}.{self.task}"

    @property
    def name(self) -> str:
        tried = "" if self.attempt is None else f"({self.attempt})"
        return f"{self.place}-driver{tried}" if self.driver else f"{self.place}.executor{tried}"

    @property
    def template(self) -> str:
        return "system-container-driver" if self.driver else "system-container-impl"

    @property
    def node(self) -> str:
        return f"{WORKFLOW}-{fnv32a(self.name)}"

    @property
    def pod(self) -> str:
        return f"{WORKFLOW}-{self.template}-{fnv32a(self.name)}"

    @property
    def log_uri(self) -> str:
        return f"minio://mlpipeline/v2/artifacts/{self.task}/{fnv32a(self.place)}/executor-logs"


def of_tries(tried: list[Tried]) -> dict[str, Any]:
    """The pods, and of each task its driver's, which fixed where the log goes."""
    nodes = {one.node: _node(one.name, "Pod", one.template, one.phase, one.message, one.finished) for one in tried}
    for one in tried:
        driver = Tried(one.task, iteration=one.iteration, driver=True, folder=one.folder)
        if not one.driver and driver.node not in nodes:
            nodes[driver.node] = _node(driver.name, "Pod", driver.template, "Succeeded", "", "2026-11-28T00:01:00Z")
            given = {"outputs": {"artifacts": {"executor-logs": {"artifacts": [{"uri": one.log_uri}]}}}}
            patch = {"containers": [{"command": ["launch", "--executor_input", json.dumps(given)]}]}
            nodes[driver.node]["outputs"] = {"parameters": [{"name": "pod-spec-patch", "value": json.dumps(patch)}]}
        if not one.driver:
            nodes[f"{WORKFLOW}-{fnv32a(one.place)}"] = _node(
                one.place, "DAG", "system-container-executor", one.phase, "", one.finished
            )
    return {"metadata": {"name": WORKFLOW}, "status": {"phase": "Failed", "nodes": nodes}}


def of_nodes(nodes: Any) -> dict[str, Any]:
    """The same of an engine's nodes (tests/standin/nodes.py)."""
    found = {}
    for node in nodes.all():
        ended = node.phase not in ("Pending", "Running")
        finished = f"2026-11-28T{int(node.finished) // 3600:02d}:{int(node.finished) // 60 % 60:02d}:{int(node.finished) % 60:02d}Z"
        found[nodes.id(node.name)] = _node(node.name, node.type, node.template, node.phase, node.message, finished if ended else "")
    return {"metadata": {"name": nodes.workflow}, "status": {"nodes": found}}


def _node(name: str, kind: str, template: str, phase: str, message: str, finished: str) -> dict[str, Any]:
    node = {"name": name, "type": kind, "templateName": template, "phase": phase, "message": message}
    return {**node, **({"finishedAt": finished} if phase not in ("Running", "Pending") else {})}
