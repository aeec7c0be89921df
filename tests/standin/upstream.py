"""Outputs of earlier tasks, found by their maker's name: of a task, out of nested graphs, out of a loop's iterations."""

from collections import deque
from typing import Any

from tests.standin.errors import DriverError
from tests.standin.metadata import CONTAINER, DAG, IMPORTER_WORKSPACE, Execution, Metadata, with_dag, with_index
from tests.standin.values import Value


class Upstream:
    """What the tasks before made, as seen from one graph."""

    def __init__(self, metadata: Metadata, dag: Execution) -> None:
        self.metadata, self.dag = metadata, dag

    def parameter(self, producer: str, key: str) -> Value:
        """KFP 2.17.0 backend/src/v2/driver/resolve.go:577."""
        return self._found(producer, key, artifact=False)

    def artifacts(self, producer: str, key: str) -> list[dict[str, Any]]:
        """KFP 2.17.0 backend/src/v2/driver/resolve.go:700."""
        found = self._found(producer, key, artifact=True)
        return found if isinstance(found, list) else [found]

    def state(self, producer: str) -> Execution:
        """The execution that an exit task is told of. KFP 2.17.0 backend/src/v2/driver/resolve.go:467."""
        tasks = self.metadata.all_in_dag(self.dag)
        name = with_dag(producer, self.dag.id)
        if name not in tasks:
            raise DriverError(f"producer task, {name}, not in tasks")
        return tasks[name]

    def _found(self, producer: str, key: str, *, artifact: bool) -> Any:
        tasks = self.metadata.all_in_dag(self.dag)
        name = with_dag(producer, self.dag.id)
        if self.dag.iteration_index is not None:  # KFP 2.17.0 backend/src/v2/driver/resolve.go:1158
            name = with_index(name, self.dag.iteration_index)
        if name not in tasks:  # KFP 2.17.0 backend/src/v2/driver/resolve.go:729, 608
            raise DriverError(f'cannot find producer task "{name}"' if artifact else f"producer task, {name}, not in tasks")
        current = tasks[name]
        while current.type == DAG:
            parent = self.metadata.executions[current.parent] if current.parent else None
            if current.iteration_count or (current.iteration_count is None and parent and parent.iteration_count):
                return self._collected(name, tasks, key, artifact=artifact)
            name, key = _inner(current, tasks, name, key, artifact=artifact)
            if name not in tasks:
                raise DriverError(f"subTaskName, {name}, not in tasks")
            current = tasks[name]
        return self._output(current, key, artifact=artifact)

    def _output(self, execution: Execution, key: str, *, artifact: bool) -> Any:
        if not artifact:
            return execution.outputs.get(key)
        if key not in execution.output_artifacts:
            # KFP 2.17.0 backend/src/v2/driver/resolve.go:784 forgets to return this error and goes on with nothing
            raise DriverError(f'cannot find output artifact key "{key}" in producer task "{execution.task_name}"')
        found = self.metadata.artifacts[execution.output_artifacts[key]].runtime()
        found["type"] = {"instanceSchema": ""}  # KFP 2.17.0 backend/src/v2/metadata/client.go:253: its kind is lost on the way
        if execution.type == IMPORTER_WORKSPACE:  # KFP 2.17.0 backend/src/v2/driver/resolve.go:39
            found["metadata"]["_kfp_workspace"] = True
        return found

    def _collected(self, name: str, tasks: dict[str, Execution], key: str, *, artifact: bool) -> list[Any]:
        """One output of each iteration, in their order. KFP 2.17.0 backend/src/v2/driver/resolve.go:869."""
        queue, found = deque([(name, key)]), []
        while queue:
            name, key = queue.popleft()
            current = tasks[name]
            if current.type == CONTAINER:
                found.append(self._output(current, key, artifact=artifact))
            elif current.iteration_count is not None:
                loop = with_dag(current.task_name, current.id)
                queue.extend((with_index(loop, index), key) for index in range(current.iteration_count))
            else:
                inner, key = _inner(current, tasks, name, key, artifact=artifact)
                queue.append((with_index(inner, current.iteration_index) if current.iteration_index is not None else inner, key))
        return found


def _inner(dag: Execution, tasks: dict[str, Execution], name: str, key: str, *, artifact: bool) -> tuple[str, str]:
    """Which task inside a graph makes an output of it. KFP 2.17.0 backend/src/v2/driver/resolve.go:1036."""
    outputs = dag.producers.get("artifacts" if artifact else "parameters")
    if outputs is None:
        return name, key
    if key not in outputs:
        raise DriverError(f'artifact output key "{key}" not found in parent task "{dag.task_name}" (dag ID {dag.id})')
    if artifact:
        choices, wanted = outputs[key].get("artifactSelectors", []), "outputArtifactKey"
    elif "valueFromParameter" in outputs[key]:
        choices, wanted = [outputs[key]["valueFromParameter"]], "outputParameterKey"
    else:
        choices, wanted = outputs[key]["valueFromOneof"]["parameterSelectors"], "outputParameterKey"
    for choice in choices:
        inner = with_dag(choice["producerSubtask"], dag.id)
        if len(choices) == 1 or (inner in tasks and tasks[inner].state in ("COMPLETE", "CACHED")):
            return inner, choice[wanted]
    raise DriverError(f'processing OneOf: No successful task found for output key "{key}" in parent task "{dag.task_name}"')
