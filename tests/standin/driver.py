"""The driver: what a task is given, whether it is cached, and what its pod is to be. Runs before every task and every graph."""

import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.standin.cache import Cache, fingerprint
from tests.standin.errors import DriverError, StandInError, Unsupported
from tests.standin.metadata import CONTAINER, DAG, Artifact, Execution, Metadata
from tests.standin.package import Package
from tests.standin.platform import Platform
from tests.standin.pod import Volume
from tests.standin.resolve import WORKSPACE, Inputs, Task, items, resolve
from tests.standin.store import local_path, output_uri
from tests.standin.values import Value, as_value, text

PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")
LOGS = "executor-logs"


@dataclass
class Patch:
    """What the driver hands to Argo for a task's pod; the same for every try."""

    execution: int
    cached: bool
    executor_input: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    words: list[str] = field(default_factory=list)
    env: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    security: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)
    deadline: float | None = None


class Driver:
    """The drivers of one run."""

    def __init__(self, package: Package, metadata: Metadata, cache: Cache | None, root: str, publish_logs: bool) -> None:
        self.package, self.metadata, self.cache, self.publish_logs = package, metadata, cache, publish_logs
        self.root = root
        """The run's own place in the store."""

    def root_dag(self, run_id: str, values: dict[str, Value]) -> Execution:
        """KFP 2.17.0 backend/src/v2/driver/root_dag.go:84: it has no count of tasks, so its state never changes."""
        return self.metadata.create(type=DAG, run_id=run_id, task_name="", inputs=values)

    def dag(self, task: Task) -> Execution:
        """A graph inside another, a loop, or one iteration of it. KFP 2.17.0 backend/src/v2/driver/dag.go:43."""
        inputs = self._resolve(task)
        outputs = task.component["dag"].get("outputs", {})
        iterator, count = task.spec.get("parameterIterator"), None
        if iterator and task.iteration is None:
            count = len(self._items(iterator, inputs))
        return self.metadata.create(
            type=DAG,
            run_id=task.run_id,
            task_name=task.name,
            display_name=task.spec["taskInfo"]["name"],
            parent=task.dag.id,
            iteration_index=task.iteration,
            iteration_count=count,
            total_tasks=len(task.component["dag"]["tasks"]),
            inputs=inputs.parameters,
            input_artifacts=_numbers(inputs),
            producers={key: outputs[key] for key in ("parameters", "artifacts") if outputs.get(key)},
        )

    def container(self, task: Task) -> Patch:
        """A step's task. KFP 2.17.0 backend/src/v2/driver/container.go:47. Raises DriverError."""
        container = self.package.executor(task.component)["container"]
        inputs = self._resolve(task)
        executor_input = {"inputs": _inputs(inputs), "outputs": self._outputs(task)}
        platform = Platform(self.package.kubernetes(task.component), task, self.metadata)
        try:
            claims = [volume.name for volume in platform.claims()]
            key, known = "", None
            if self.cache is not None and task.spec.get("cachingOptions", {}).get("enableCache"):
                workspace = [f"{task.run_name}{WORKSPACE.replace('/', '-')}"] if _workspace(inputs) else []
                key = fingerprint(executor_input, container, task.component, claims + workspace)
                known = self.cache.find(key, self.package.name)
            execution = self.metadata.create(
                type=CONTAINER,
                run_id=task.run_id,
                task_name=task.name,
                display_name=task.spec["taskInfo"]["name"],
                parent=task.dag.id,
                iteration_index=task.iteration,
                inputs=inputs.parameters,
                input_artifacts=_numbers(inputs),
                fingerprint=key,
                cached=known,
            )
            if known is not None:
                self._reuse(execution, executor_input, known)
                return Patch(execution.id, cached=True, executor_input=executor_input)
            return self._patch(task, container, executor_input, platform, execution, inputs)
        except DriverError as error:
            raise DriverError(self._failed("Container", task, error)) from error

    def _patch(
        self,
        task: Task,
        container: dict[str, Any],
        executor_input: dict[str, Any],
        platform: Platform,
        execution: Execution,
        inputs: Inputs,
    ) -> Patch:
        # KFP 2.17.0 backend/src/v2/driver/driver.go:289: what the pipeline names comes first, then what Kubernetes fills in
        env = [{"name": one["name"], "value": one.get("value", "")} for one in container.get("env", [])]
        labels, annotations = platform.metadata()
        volumes = platform.volumes()
        if _workspace(inputs):
            volumes.append(self._workspace_volume(task, volumes))
        return Patch(
            execution.id,
            cached=False,
            executor_input=executor_input,
            image=_filled(container["image"], inputs),
            words=[_filled(word, inputs) for word in [*container.get("command", []), *container.get("args", [])]],
            env=env + platform.env(),
            volumes=volumes,
            security=platform.security(),
            labels=labels,
            annotations=annotations,
            resources=container.get("resources", {}),
            rest=platform.rest(),
            deadline=platform.deadline(),
        )

    def _resolve(self, task: Task) -> Inputs:
        if task.spec.get("triggerPolicy", {}).get("condition"):
            raise Unsupported("the stand-in evaluates no conditions")
        try:
            return resolve(task, self.metadata)
        except StandInError as error:
            if isinstance(error, Unsupported):
                raise
            raise DriverError(self._failed("DAG" if task.is_dag else "Container", task, error)) from error

    def _failed(self, kind: str, task: Task, error: Exception) -> str:
        """KFP 2.17.0 backend/src/v2/driver/driver.go:123 and cmd/driver/main.go:312."""
        place = f'pipelineName={self.package.name}, runID={task.run_id}, taskDisplayName="{task.spec["taskInfo"]["name"]}"'
        component = task.spec["componentRef"]["name"]
        more = f', taskName="{task.name}", component="{component}", dagExecutionID={task.dag.id}, componentSpec'
        return f"KFP driver: driver.{kind}({place}{more}) failed: {error}"

    def _items(self, iterator: dict[str, Any], inputs: Inputs) -> list[Value]:
        """KFP 2.17.0 backend/src/v2/driver/dag.go:170."""
        import json

        if "inputParameter" in iterator["items"]:
            return items(inputs.parameters[iterator["items"]["inputParameter"]])
        inputs.parameters[iterator["itemInput"]] = as_value(json.loads(iterator["items"]["raw"]))
        return items(inputs.parameters[iterator["itemInput"]])

    def _outputs(self, task: Task) -> dict[str, Any]:
        """Where the outputs go: below a folder of the task's own. KFP 2.17.0 backend/src/v2/driver/driver.go:741."""
        defined = task.component.get("outputDefinitions", {})
        kinds = {name: one["artifactType"] for name, one in defined.get("artifacts", {}).items()}
        if self.publish_logs:
            kinds[LOGS] = {"schemaTitle": "system.Artifact"}
        place = output_uri(self.root, task.name, str(uuid.uuid4()))
        return {
            "artifacts": {
                name: {"artifacts": [{"name": name, "uri": output_uri(place, name), "type": kind}]} for name, kind in kinds.items()
            },
            "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in defined.get("parameters", {})},
            "outputFile": f"{local_path(place)}/output_metadata.json",
        }

    def _reuse(self, execution: Execution, executor_input: dict[str, Any], known: int) -> None:
        """KFP 2.17.0 backend/src/v2/driver/cache.go:56: the very artifacts of then, so that the tasks behind are cached too."""
        before, found = self.metadata.executions[known], dict[str, Artifact]()
        for name in executor_input["outputs"]["artifacts"]:
            if name not in before.output_artifacts:
                raise DriverError(f"unable to find artifact with name {name} in mlmd output artifacts")
            found[name] = self.metadata.artifacts[before.output_artifacts[name]]
        self.metadata.publish(execution, "CACHED", dict(before.outputs), found, self.package.name)

    def _workspace_volume(self, task: Task, volumes: list[Volume]) -> Volume:
        """KFP 2.17.0 backend/src/v2/driver/driver.go:492 and 812."""
        for volume in volumes:
            if volume.path.startswith(WORKSPACE) or volume.name == "kfp-workspace":
                raise DriverError(f"user volume mount at {volume.path} conflicts with workspace mount at {WORKSPACE}")
        return Volume("kfp-workspace", WORKSPACE, "workspace", f"{task.run_name}-kfp-workspace")


def _filled(word: str, inputs: Inputs) -> str:
    """A word of the command: input parameters, and nothing else of `{{$...}}`.

    KFP 2.17.0 backend/src/v2/driver/util.go:263: one with an output in it is left to the launcher; a missing value is an error.
    """
    if "$.outputs" in word:
        return word
    if word.strip().startswith('{"IfPresent":'):
        raise Unsupported("the stand-in knows no IfPresent")

    def value(found: re.Match[str]) -> str:
        if found[1] not in inputs.parameters:
            raise DriverError(
                "failed to resolve container args: failed to resolve input parameters: "
                f'parameter "{found[1]}" not found in executor input'
            )
        return text(inputs.parameters[found[1]])

    return PARAMETER.sub(value, word)


def _inputs(inputs: Inputs) -> dict[str, Any]:
    artifacts = {name: {"artifacts": found} for name, found in inputs.artifacts.items()}
    return {"parameterValues": inputs.parameters, "artifacts": artifacts}


def _numbers(inputs: Inputs) -> dict[str, list[int]]:
    return {name: [int(one["name"]) for one in found] for name, found in inputs.artifacts.items()}


def _workspace(inputs: Inputs) -> bool:
    """Whether the pod gets the run's workspace: by what it is given. KFP 2.17.0 backend/src/v2/driver/driver.go:521."""
    if any(isinstance(value, str) and WORKSPACE in value for value in inputs.parameters.values()):
        return True
    return any(found and found[0]["metadata"].get("_kfp_workspace") is True for found in inputs.artifacts.values())
