"""Argo's nodes: what the API shows of a run as its tasks."""

import datetime
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

STATES = {
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Succeeded": "SUCCEEDED",
    "Skipped": "SKIPPED",
    "Failed": "FAILED",
    "Error": "FAILED",
}
"""KFP 2.17.0 backend/src/apiserver/model/run.go:97: an error is a failure there, and what was omitted has no state."""
DONE = ("Succeeded", "Skipped")


@dataclass
class Node:
    name: str
    display: str
    type: str
    """Pod, DAG, Retry or TaskGroup."""
    template: str = ""
    phase: str = "Pending"
    message: str = ""
    children: list[str] = field(default_factory=list)
    started: float = 0.0
    finished: float = 0.0
    outputs: Any = None
    log: str = ""

    @property
    def ended(self) -> bool:
        return self.phase not in ("Pending", "Running")

    @property
    def bad(self) -> bool:
        return self.phase in ("Failed", "Error")


class Nodes:
    """All nodes of one workflow, by name."""

    def __init__(self, workflow: str, kept: Iterable[Node] = ()) -> None:
        self.workflow = workflow
        self._nodes = {node.name: node for node in kept}
        self._lock = threading.Lock()

    def add(self, node: Node, parent: Node | None) -> Node:
        with self._lock:
            self._nodes[node.name] = node
            if parent is not None and node.name not in parent.children:
                parent.children.append(node.name)
        return node

    def kept(self, name: str) -> Node | None:
        """A node that an earlier try of the run has done."""
        with self._lock:
            found = self._nodes.get(name)
        return found if found is not None and found.phase in DONE else None

    def all(self) -> list[Node]:
        with self._lock:
            return list(self._nodes.values())

    def id(self, name: str) -> str:
        """Argo 4.0.8 pkg/apis/workflow/v1alpha1/workflow_types.go, NodeID."""
        return name if name == self.workflow else f"{self.workflow}-{fnv32a(name)}"

    def pod_name(self, node: Node) -> str:
        """Argo 4.0.8 workflow/util/pod_name.go:50."""
        return f"{self.workflow}-{node.template}"[:236] + f"-{fnv32a(node.name)}"

    def find(self, word: str) -> Node | None:
        """By pod's name, by node's number, or by its name."""
        for node in self.all():
            if word in (node.name, self.id(node.name)) or (node.type == "Pod" and word == self.pod_name(node)):
                return node
        return None

    def below(self, node: Node, depth: int = 3) -> list[Node]:
        """A node and those below it. KFP 2.17.0 backend/src/common/util/workflow.go:805: three steps down, no further."""
        found = [node]
        if depth:
            by_name = {one.name: one for one in self.all()}
            for child in node.children:
                if child in by_name:
                    found += self.below(by_name[child], depth - 1)
        return found

    def details(self, run_id: str) -> list[dict[str, Any]]:
        """KFP 2.17.0 backend/src/apiserver/server/api_converter.go:1875.

        There is no `error` of a task in it: what Argo says of a node stays in the workflow. Pods are named only as children, by the
        node's number and not by the pod's name.
        """
        return [
            {
                "run_id": run_id,
                "task_id": f"task-{fnv32a(node.name)}",
                "display_name": node.display,
                "create_time": stamp(node.started),
                "start_time": stamp(node.started),
                "end_time": stamp(node.finished),
                "state": STATES.get(node.phase, "RUNTIME_STATE_UNSPECIFIED"),
                **({"child_tasks": [{"pod_name": self.id(child)} for child in node.children]} if node.children else {}),
            }
            for node in sorted(self.all(), key=lambda one: self.id(one.name))
        ]


def stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(1_790_000_000 + seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fnv32a(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value
