"""A compiled pipeline as the API server takes it: parsed strictly, parameters checked, what cannot become a workflow refused."""

from dataclasses import dataclass
from typing import Any

from tests.standin.errors import ApiError, CompileError
from tests.standin.values import Value, as_value

EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"
TYPES = {"NUMBER_DOUBLE": float, "NUMBER_INTEGER": float, "STRING": str, "BOOLEAN": bool, "LIST": list, "STRUCT": dict}


@dataclass(frozen=True)
class Package:
    """Both documents, as protobuf writes them."""

    spec: dict[str, Any]
    platform: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def root(self) -> dict[str, Any]:
        return dict(self.spec["root"])

    def component(self, task: dict[str, Any]) -> dict[str, Any]:
        name = task["componentRef"]["name"]
        if name not in self.spec.get("components", {}):
            raise CompileError(f'component spec for "{name}" not found')
        return dict(self.spec["components"][name])

    def executor(self, component: dict[str, Any]) -> dict[str, Any]:
        label = component["executorLabel"]
        found = self.spec["deploymentSpec"].get("executors", {}).get(label)
        if found is None:
            raise CompileError(f'executor with label "{label}" not found')
        return dict(found)

    def kubernetes(self, component: dict[str, Any]) -> dict[str, Any]:
        """What Kubernetes is asked for, for the executor of a component."""
        executors = self._kubernetes.get("deploymentSpec", {}).get("executors", {})
        return dict(executors.get(component.get("executorLabel"), {}))

    @property
    def workspace(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._kubernetes.get("pipelineConfig", {}).get("workspace")
        return found

    @property
    def _kubernetes(self) -> dict[str, Any]:
        return dict(self.platform.get("platforms", {}).get("kubernetes", {}))


def load(spec: dict[str, Any], platform: dict[str, Any] | None = None) -> Package:
    """Parse as the server does: an unknown field is an error. Raises ApiError."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        platforms = json_format.ParseDict(platform or {}, pipeline_spec_pb2.PlatformSpec())
        package = Package(json_format.MessageToDict(parsed), json_format.MessageToDict(platforms))
        # KFP 2.17.0 backend/src/v2/cmd/driver/main.go:359: the driver parses each executor's part strictly as well
        for asked in package._kubernetes.get("deploymentSpec", {}).get("executors", {}).values():
            json_format.ParseDict(asked, kubernetes.KubernetesExecutorConfig())
    except json_format.ParseError as error:
        raise ApiError(400, f"invalid v2 pipeline spec: {error}") from error
    if not package.spec.get("pipelineInfo", {}).get("name"):
        raise ApiError(400, "pipelineInfo.name is empty")
    for dag in [package.root, *package.spec.get("components", {}).values()]:
        _check(package, dag.get("dag", {}).get("tasks", {}))
    return package


def _check(package: Package, tasks: dict[str, Any]) -> None:
    """What the compiler to Argo refuses in a graph."""
    for name, task in tasks.items():
        if "artifactIterator" in task:  # KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:68
            raise CompileError("artifact iterator not implemented yet")
        component = package.component(task)
        if "executorLabel" not in component:
            continue
        executor = package.executor(component)
        # KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:338
        if "importer" in executor and task.get("triggerPolicy", {}).get("condition"):
            raise CompileError(f'compiling task "{name}": triggerPolicy.condition on importer task is not supported')
        if not {"importer", "container"} & set(executor):  # KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:348
            raise CompileError(f'compiling task "{name}": unknown executor spec type')
    # KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:142
    if tasks and all(task.get("triggerPolicy", {}).get("strategy") == EXIT for task in tasks.values()):
        raise CompileError("DAG must contain one or more non-exit tasks")


def dependencies(tasks: dict[str, Any], name: str) -> list[str]:
    """The tasks that must have succeeded before: those named, and the makers of inputs.

    KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:659.
    """
    task = tasks[name]
    found = list(task.get("dependentTasks", []))
    inputs = [*task.get("inputs", {}).get("parameters", {}).values(), *task.get("inputs", {}).get("artifacts", {}).values()]
    for one in inputs:
        producer = one.get("taskOutputParameter", one.get("taskOutputArtifact", {})).get("producerTask")
        if producer is not None and producer not in tasks:
            raise CompileError(f'failed to add implicit deps: unknown producer task "{producer}" in DAG')
        if producer is not None and producer not in found:
            found.append(producer)
    return found


def parameters(package: Package, given: dict[str, Any]) -> dict[str, Value]:
    """The root's parameters: what a run is given, and the defaults. Raises ApiError.

    KFP 2.17.0 backend/src/apiserver/template/v2_template.go:442 and backend/src/v2/compiler/argocompiler/argo.go:96.
    """
    defined = package.root.get("inputDefinitions", {}).get("parameters", {})
    extra = [name for name in given if name not in defined]
    if extra:
        raise ApiError(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")
    values = {name: as_value(value) for name, value in given.items()}
    for name, definition in defined.items():
        kind = definition.get("parameterType")
        if name in values:
            if not isinstance(values[name], TYPES[kind]):
                raise ApiError(400, f"input parameter {name} requires type {kind.lower()}, but the input parameter is not of it")
        elif "defaultValue" in definition:
            values[name] = as_value(definition["defaultValue"])
        elif definition.get("isOptional"):
            values[name] = None
        else:
            raise ApiError(400, f"parameter {name} is not optional, yet has neither default value nor user provided value")
    return values
