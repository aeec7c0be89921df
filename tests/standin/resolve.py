"""A task's inputs: the values and artifacts that the driver resolves before the task's pod is made."""

from dataclasses import dataclass
from typing import Any

from tests.standin.errors import DriverError, StandInError, Unsupported
from tests.standin.metadata import Execution, Metadata
from tests.standin.upstream import Upstream
from tests.standin.values import Value, as_value, go_json, kind

WORKSPACE = "/kfp-workspace"
TYPES = {
    float: ("number", ("NUMBER_DOUBLE", "NUMBER_INTEGER")),
    bool: ("bool", ("BOOLEAN",)),
    list: ("list", ("LIST",)),
    dict: ("struct", ("STRUCT", "TASK_FINAL_STATUS", "TASK_CONFIG")),
    str: ("string", ("STRING",)),
}


class NullParameterError(StandInError):
    """An optional parameter of the pipeline that nobody gave."""


@dataclass(frozen=True)
class Task:
    """What a driver is told."""

    name: str
    spec: dict[str, Any]
    component: dict[str, Any]
    dag: Execution
    run_id: str
    run_name: str
    run_display_name: str
    create_time: str
    iteration: int | None = None
    is_dag: bool = False


@dataclass
class Inputs:
    parameters: dict[str, Value]
    artifacts: dict[str, list[dict[str, Any]]]


def resolve(task: Task, metadata: Metadata) -> Inputs:
    """Every input of a task. KFP 2.17.0 backend/src/v2/driver/resolve.go:102. Raises DriverError."""
    try:
        inputs = _iteration(task, metadata) if task.iteration is not None else _inputs(task, metadata)
        _check_types(task, inputs)
    except DriverError as error:
        raise DriverError(f"failed to resolve inputs: {error}") from error
    return inputs


def _inputs(task: Task, metadata: Metadata) -> Inputs:
    defined = task.component.get("inputDefinitions", {}).get("parameters", {})
    inputs = Inputs({}, {})
    given = task.spec.get("inputs", {}).get("parameters", {})
    if task.is_dag:  # KFP 2.17.0 backend/src/v2/driver/resolve.go:306: a nested pipeline's own defaults
        for name, definition in defined.items():
            if name not in given and definition.get("isOptional"):
                inputs.parameters[name] = as_value(definition.get("defaultValue"))
    for name, source in given.items():
        if source.get("parameterExpressionSelector"):
            raise Unsupported(f"the stand-in evaluates no expression: {source['parameterExpressionSelector']}")
        try:
            inputs.parameters[name] = parameter(task, source, metadata)
        except NullParameterError as error:
            if not defined.get(name, {}).get("isOptional"):
                raise DriverError(str(error)) from error
    for name, source in task.spec.get("inputs", {}).get("artifacts", {}).items():
        inputs.artifacts[name] = _artifacts(task, name, source, metadata)
    return inputs


def parameter(task: Task, source: dict[str, Any], metadata: Metadata) -> Value:
    """One parameter, from wherever it comes. KFP 2.17.0 backend/src/v2/driver/resolve.go:375."""
    if "componentInputParameter" in source:
        name = source["componentInputParameter"]
        if name not in task.dag.inputs:
            raise DriverError(f"parent DAG does not have input parameter {name}")
        if task.dag.inputs[name] is None:
            raise NullParameterError(f"the resolved input parameter is null: {name}")
        return task.dag.inputs[name]
    if "taskOutputParameter" in source:
        found = source["taskOutputParameter"]
        return Upstream(metadata, task.dag).parameter(found["producerTask"], found["outputParameterKey"])
    if "runtimeValue" in source:
        return _constant(task, as_value(source["runtimeValue"]["constant"]))
    if "taskFinalStatus" in source:
        return _final_status(task, metadata)
    raise DriverError(f"parameter spec of type {', '.join(source)} not implemented yet")


def _constant(task: Task, value: Value) -> Value:
    """A constant; the run's placeholders are known only where they are the whole of it.

    KFP 2.17.0 backend/src/v2/driver/resolve.go:435: these seven, nowhere else, never inside a longer text.
    """
    if isinstance(value, str) and "{{$.workspace_path}}" in value:  # KFP 2.17.0 backend/src/v2/driver/resolve.go:430
        return value.replace("{{$.workspace_path}}", WORKSPACE)
    known = {
        "{{$.pipeline_job_name}}": task.run_display_name,
        "{{$.pipeline_job_resource_name}}": task.run_name,
        "{{$.pipeline_job_uuid}}": task.run_id,
        "{{$.pipeline_task_name}}": task.name,
        "{{$.pipeline_task_uuid}}": str(task.dag.id),
        "{{$.pipeline_job_create_time_utc}}": task.create_time,
        "{{$.pipeline_job_schedule_time_utc}}": task.create_time,
    }
    return known.get(value, value) if isinstance(value, str) else value


def _final_status(task: Task, metadata: Metadata) -> Value:
    """What an exit task is told: the graph's state in ML Metadata, Argo's name of the run, and no error.

    KFP 2.17.0 backend/src/v2/driver/resolve.go:471. The words are ML Metadata's, COMPLETE and FAILED, not the API's; after a
    termination nobody has changed RUNNING.
    """
    producer = Upstream(metadata, task.dag).state(task.spec["dependentTasks"][0])
    return {
        "state": producer.state,
        "pipelineTaskName": producer.task_name,
        "pipelineJobResourceName": task.run_name,
        "error": {},
    }


def _artifacts(task: Task, name: str, source: dict[str, Any], metadata: Metadata) -> list[dict[str, Any]]:
    """KFP 2.17.0 backend/src/v2/driver/resolve.go:528."""
    try:
        if "componentInputArtifact" in source:
            wanted, held = source["componentInputArtifact"], _held(task.dag, metadata)
            if wanted not in held:
                raise DriverError(f"parent DAG does not have input artifact {wanted}")
            return held[wanted]
        if "taskOutputArtifact" in source:
            found = source["taskOutputArtifact"]
            return Upstream(metadata, task.dag).artifacts(found["producerTask"], found["outputArtifactKey"])
    except DriverError as error:
        raise DriverError(f"failed to resolve input artifact {name} with spec {go_json(source)}: {error}") from error
    raise DriverError(f"artifact spec of type {', '.join(source)} not implemented yet")


def _held(dag: Execution, metadata: Metadata) -> dict[str, list[dict[str, Any]]]:
    """The artifacts that a graph hands on to its tasks.

    KFP 2.17.0 backend/src/v2/metadata/client.go:1150: of a list it hands on one, and an artifact under two names keeps one of them.
    """
    names = {number: name for name, numbers in dag.input_artifacts.items() for number in numbers}
    return {name: [metadata.artifacts[number].runtime()] for number, name in names.items()}


def _iteration(task: Task, metadata: Metadata) -> Inputs:
    """A loop's iteration gets the loop's inputs and its item. KFP 2.17.0 backend/src/v2/driver/resolve.go:268."""
    iterator = task.spec["parameterIterator"]
    inputs = Inputs(dict(task.dag.inputs), _held(task.dag, metadata))
    where = iterator["items"].get("inputParameter") or iterator["itemInput"]
    found = items(inputs.parameters.pop(where))
    assert task.iteration is not None
    inputs.parameters[iterator["itemInput"]] = found[task.iteration]
    return inputs


def items(value: Value) -> list[Value]:
    """What a loop goes over. KFP 2.17.0 backend/src/v2/driver/util.go:118."""
    import json

    if isinstance(value, str):
        value = as_value(json.loads(value))
    if not isinstance(value, list):
        raise DriverError(f"value of type {kind(value)} cannot be iterated")
    return value


def _check_types(task: Task, inputs: Inputs) -> None:
    """Types as the component wants them; a text may be made of anything. KFP 2.17.0 backend/src/v2/driver/resolve.go:169."""
    iterator = task.spec.get("parameterIterator")
    for name, definition in task.component.get("inputDefinitions", {}).get("parameters", {}).items():
        if iterator and task.iteration is None and iterator["itemInput"] == name:
            continue
        if iterator and task.iteration is not None and iterator["items"].get("inputParameter") == name:
            continue
        if name not in inputs.parameters:
            if not definition.get("isOptional") and "defaultValue" not in definition:
                raise DriverError(f'neither value nor default value provided for non-optional parameter "{name}"')
            continue
        value, wanted = inputs.parameters[name], definition["parameterType"]
        if value is None:
            if not (task.is_dag and definition.get("isOptional")):
                raise DriverError(f'got null for input parameter "{name}"')
        elif wanted == "STRING":
            inputs.parameters[name] = value if isinstance(value, str) else go_json(value)
        elif wanted not in TYPES[type(value)][1]:
            raise DriverError(f'input parameter "{name}" type mismatch: expect {wanted}, got {TYPES[type(value)][0]}')
