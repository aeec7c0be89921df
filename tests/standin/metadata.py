"""ML Metadata as driver and launcher use it: executions and artifacts of a run, found by the name of their task."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.standin.errors import StandInError
from tests.standin.values import Value, kind

CONTAINER, DAG = "system.ContainerExecution", "system.DAGExecution"
SESSION = '{"Provider":"minio","Params":{"fromEnv":"false"}}'
"""How the store is reached; abridged."""
IMPORTER, IMPORTER_WORKSPACE = "system.ImporterExecution", "system.ImporterWorkspaceExecution"


@dataclass
class Artifact:
    id: int
    type: str
    uri: str
    properties: dict[str, Value]
    pipelines: set[str] = field(default_factory=set)

    def runtime(self) -> dict[str, Any]:
        """As an input of a task: its name is its number.

        KFP 2.17.0 backend/src/v2/metadata/converter.go:29: two artifacts of equal bytes have two names, and a cached one keeps its.
        """
        return {"name": str(self.id), "uri": self.uri, "metadata": dict(self.properties)}


@dataclass
class Execution:
    id: int
    type: str
    run_id: str
    task_name: str
    display_name: str = ""
    parent: int | None = None
    iteration_index: int | None = None
    iteration_count: int | None = None
    total_tasks: int | None = None
    state: str = "RUNNING"
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    input_artifacts: dict[str, list[int]] = field(default_factory=dict)
    output_artifacts: dict[str, int] = field(default_factory=dict)
    producers: dict[str, Any] = field(default_factory=dict)
    """A graph's outputs, and which of its tasks makes them."""
    fingerprint: str = ""
    cached: int | None = None
    pod: str = ""
    seconds: float = 0.0


class Metadata:
    """One server for all runs."""

    def __init__(self) -> None:
        self.executions: dict[int, Execution] = {}
        self.artifacts: dict[int, Artifact] = {}
        self._lock = threading.RLock()

    def create(self, **facts: Any) -> Execution:
        with self._lock:
            made = Execution(id=len(self.executions) + 1, **facts)
            self.executions[made.id] = made
            return made

    def record(self, kind_: str, uri: str, metadata: dict[str, Value], name: str) -> Artifact:
        """Note an artifact. KFP 2.17.0 backend/src/v2/metadata/client.go:1214."""
        properties = {key: converted(value) for key, value in metadata.items() if key != "_kfp_workspace"}
        return self.add(kind_, uri, {"display_name": name, "store_session_info": SESSION} | properties)

    def add(self, kind_: str, uri: str, properties: dict[str, Value]) -> Artifact:
        with self._lock:
            made = Artifact(len(self.artifacts) + 1, kind_, uri, properties)
            self.artifacts[made.id] = made
            return made

    def publish(
        self, execution: Execution, state: str, outputs: dict[str, Value], artifacts: dict[str, Artifact], pipeline: str
    ) -> None:
        with self._lock:
            execution.state = state
            execution.outputs |= outputs
            for name, artifact in artifacts.items():
                artifact.pipelines.add(pipeline)
                execution.output_artifacts[name] = artifact.id

    def in_dag(self, dag: Execution) -> dict[str, Execution]:
        """The executions of a graph by the name of their task. KFP 2.17.0 backend/src/v2/metadata/client.go:983."""
        found: dict[str, Execution] = {}
        with self._lock:
            children = [one for one in self.executions.values() if one.parent == dag.id]
        for one in children:
            name = with_dag(one.task_name, dag.id)
            index = one.iteration_index if one.iteration_index is not None else dag.iteration_index
            if index is not None:
                name = with_index(name, index)
            if name in found:  # KFP 2.17.0 backend/src/v2/metadata/client.go:1063
                raise StandInError(
                    f"failed to get executions in DAG(executionID={dag.id}): "
                    f'two tasks have the same task name "{name}", id1={found[name].id} id2={one.id}'
                )
            found[name] = one
        return found

    def all_in_dag(self, dag: Execution) -> dict[str, Execution]:
        """The same with the graphs inside it. KFP 2.17.0 backend/src/v2/driver/resolve.go:62."""
        found = self.in_dag(dag)
        for one in list(found.values()):
            if one.type == DAG:
                found |= self.all_in_dag(one)
        return found

    def update_dag(self, dag: Execution) -> None:
        """A graph's state from its tasks', upwards. KFP 2.17.0 backend/src/v2/metadata/client.go:800.

        Only the launcher does this, so a graph whose last task is cached, or whose task never starts, stays RUNNING.
        """
        with self._lock:
            expected = dag.iteration_count if dag.iteration_count is not None else dag.total_tasks
            if not expected and dag.iteration_count is None:
                return
            states = [one.state for one in self.in_dag(dag).values()]
            if sum(state in ("COMPLETE", "CACHED", "CANCELED") for state in states) == expected:
                dag.state = "COMPLETE"
            elif "FAILED" in states:
                dag.state = "FAILED"
            else:
                return
            if dag.parent is not None:
                self.update_dag(self.executions[dag.parent])

    def matching(self, kind_: str, uri: str, metadata: dict[str, Value], pipeline: str) -> Artifact | None:
        """An importer without reimport takes one that is known. KFP 2.17.0 backend/src/v2/metadata/client.go:1303."""
        with self._lock:
            for one in self.artifacts.values():
                same = one.type == kind_ and one.uri == uri and pipeline in one.pipelines
                if same and all(one.properties.get(key) == value for key, value in metadata.items()):
                    return one
        return None

    def of_run(self, run_id: str) -> Iterator[Execution]:
        return (one for one in list(self.executions.values()) if one.run_id == run_id)


def converted(value: Value) -> Value:
    """A value as ML Metadata keeps it. KFP 2.17.0 backend/src/v2/metadata/converter.go:138: null has no place there."""
    if value is None:
        raise StandInError(f"failed to convert RuntimeArtifact to MLMD artifact: unknown/unsupported value type {kind(value)}")
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    return {"struct": value} if isinstance(value, dict) else value


def with_dag(task: str, dag: int) -> str:
    """KFP 2.17.0 backend/src/v2/metadata/client.go:377."""
    return f"{task}_{dag}"


def with_index(task: str, index: int) -> str:
    """KFP 2.17.0 backend/src/v2/metadata/client.go:384."""
    return f"{task}_idx_{index}"
