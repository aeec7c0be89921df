"""The container components of the pipeline: of each step from the table of steps, and of the few tasks that stand around them.

A component is a container specification and no code: `dier task ... -- STEP --params ... --out ...`, where what stands after
`--` is the step's command, the very one that DVC runs. `dier task` runs it and tells Kubeflow what it made (pipeline/task/task.py).
No placeholder of a run stands in a command: Kubeflow resolves inputs and outputs there, and nothing else.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from pipeline.kubeflow import parameters
from pipeline.kubeflow.cluster import Cluster
from pipeline.steps import DATASETS, JOIN, SPLIT, STATE, STEPS, Step
from pipeline.trainjob import manifest

TASK = ["dier", "task", "--executor-input", "{{$}}"]
NO_SETTINGS = "{}"
"""What stands in a command line in place of params.yaml: `dier task` has the settings from the executor input."""
WORK = f"{STATE}/train"
"""Running checkpoints, on a volume (pipeline/kubeflow/placement.py)."""
PERMANENT_FAILURES = f"{STATE}/permanent-failure"
"""Where train remembers, by run, a failure that no retry can cure."""
KFP_TYPE = {step.output: getattr(dsl, step.kfp_type) for step in STEPS}
FINGERPRINT = "dataset_fingerprint"
"""What prepare hands on of a dataset that it leaves on a claim: its name there, and what the cache sees change."""


def step_component(step: Step, cluster: Cluster, defaults: Mapping[str, Any] | None = None) -> BaseComponent:
    """Of a step: its parameters are `SECTION_settings` and single settings, then come its artifacts and what the UI shows.

    `defaults` of parameters are for pipelines of others (pipeline/kubeflow/component_files.py): ours hands every one of them on.
    """
    annotations: dict[str, Any] = parameters.types(list(parameters.of_task(step.sections)))
    annotations |= inputs(step, cluster)
    annotations |= {step.kubeflow_output: dsl.Output[KFP_TYPE[step.output]]}
    annotations |= {name: dsl.Output[getattr(dsl, kind)] for name, kind in step.shown.items()}
    if keeps_dataset(step, cluster):
        annotations |= {FINGERPRINT: dsl.OutputPath(str)}
    annotations = dict(sorted(annotations.items(), key=lambda one: one[0] in (defaults or {})))  # as Python wants it: those last

    def specification(*given: Any) -> dsl.ContainerSpec:
        values = dict(zip(annotations, given, strict=True))
        return dsl.ContainerSpec(
            image=cluster.image, command=_task(step, cluster, values), args=_command_line(step, cluster, values)
        )

    specification.__name__, specification.__doc__ = step.name, step.help
    return dsl.container_component(signed(specification, annotations, defaults))


def gate_component(step: Step, cluster: Cluster) -> BaseComponent:
    """Of the gate of a step: it holds to the artifact and ends the run with one line where that says no."""
    annotations = {f"{step.output}_in": dsl.Input[KFP_TYPE[step.output]]}

    def specification(given: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=cluster.image, command=["dier", "gate"], args=[f"--{step.output}", given.path])

    specification.__name__, specification.__doc__ = str(step.gate), f"End the run where the {step.output} says no."
    return dsl.container_component(signed(specification, annotations))


def outcome_component(cluster: Cluster) -> BaseComponent:
    """Of the task that ends what a run may leave running, and tells how it ended."""

    @dsl.container_component  # type: ignore[untyped-decorator]
    def outcome(status: dsl.PipelineTaskFinalStatus, outcome: dsl.Output[dsl.Artifact]) -> dsl.ContainerSpec:
        """Record how the run ended."""
        command = ["dier", "outcome", "--executor-input", "{{$}}"] + (["--end-trainjob"] if cluster.many_nodes else [])
        return dsl.ContainerSpec(image=cluster.image, command=command, args=["--status", status, "--out", outcome.path])

    return outcome


def split_component(cluster: Cluster) -> BaseComponent:
    """Of the task that gives the settings of embed once for each timestep and part."""
    annotations: dict[str, Any] = parameters.types(list(parameters.of_task(["embed"])))
    annotations |= {"sections": dsl.OutputPath(list[dict])}  # type: ignore[type-arg]

    def specification(*given: Any) -> dsl.ContainerSpec:
        values = dict(zip(annotations, given, strict=True))
        arguments = [SPLIT, "--params", NO_SETTINGS, "--parts", str(cluster.embed.parts), "--out", values["sections"]]
        return dsl.ContainerSpec(image=cluster.image, command=[*TASK, "--"], args=arguments)

    specification.__name__, specification.__doc__ = SPLIT, "The settings of embed, once for each timestep and part."
    return dsl.container_component(signed(specification, annotations))


def join_component(cluster: Cluster) -> BaseComponent:
    """Of the task that makes one artifact of the embeddings of every timestep and part."""
    annotations: dict[str, Any] = parameters.types(list(parameters.of_task(["embed"])))
    annotations |= {"parts": dsl.Input[list[dsl.Dataset]], "embeddings": dsl.Output[dsl.Dataset]}

    def specification(*given: Any) -> dsl.ContainerSpec:
        values = dict(zip(annotations, given, strict=True))
        arguments = [JOIN, "--params", NO_SETTINGS, "--out", values["embeddings"].path]
        return dsl.ContainerSpec(image=cluster.image, command=[*TASK, "--list", "parts", "--"], args=arguments)

    specification.__name__, specification.__doc__ = JOIN, "Make one artifact of the embeddings of every timestep and part."
    return dsl.container_component(signed(specification, annotations))


def signed(
    function: Callable[..., Any],
    annotations: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    returns: Any = inspect.Signature.empty,
) -> Callable[..., Any]:
    """`function(*values)` with the signature that kfp reads, which comes from the table of steps and cannot be written by hand."""
    kind, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    made = [
        inspect.Parameter(name, kind, annotation=annotation, default=(defaults or {}).get(name, none))
        for name, annotation in annotations.items()
    ]
    function.__annotations__ = dict(annotations) | ({} if returns is none else {"return": returns})
    function.__signature__ = inspect.Signature(made, return_annotation=returns)  # type: ignore[attr-defined]
    return function


def inputs(step: Step, cluster: Cluster) -> dict[str, Any]:
    """The inputs that come from other tasks, by parameter: not the work folder, nor a dataset that is mounted.

    They are Kubeflow's artifacts, each of which its launcher copies into the pod; of a dataset on a claim it is the fingerprint.
    """
    mounted = {"work"} | ({"dataset"} if cluster.dataset.source == "volume" else set())
    kinds = {name: dsl.Input[KFP_TYPE[name]] for name in step.inputs if name not in mounted}
    if "dataset" in kinds and cluster.dataset.claim:
        kinds["dataset"] = str
    return {f"{name}_in": kind for name, kind in kinds.items()}


def keeps_dataset(step: Step, cluster: Cluster) -> bool:
    """Whether the step leaves its artifact on the claim of datasets, and hands on a fingerprint in its place."""
    return step.output == "dataset" and cluster.dataset.claim is not None


def _task(step: Step, cluster: Cluster, values: dict[str, Any]) -> list[str]:
    """`dier task` up to and including `--`."""
    command = list(TASK)
    for name in step.shown:
        command += ["--show", f"{name}={values[name].path}"]
    if step.gate:
        command += ["--gated", step.gate]
    if step.name == "train":
        command += _train_task(cluster)
    if keeps_dataset(step, cluster):
        command += ["--keep-in", DATASETS, "--fingerprint-to", values[FINGERPRINT]]
    fingerprint = values["dataset_in"] if cluster.dataset.claim and "dataset_in" in values else cluster.dataset.fingerprint
    if "dataset" in step.inputs and fingerprint:
        command += ["--expect", f"dataset={fingerprint}"]
    return [*command, "--"]


def _train_task(cluster: Cluster) -> list[str]:
    """How the task runs train: in this pod, in several processes, or as a TrainJob on many nodes."""
    remembered = ["--permanent-failures", PERMANENT_FAILURES] if cluster.retry.count or cluster.many_nodes else []
    if cluster.many_nodes:
        job = manifest.manifest(cluster)
        return [*remembered, "--trainjob", json.dumps(job, separators=(",", ":")), "--keep", cluster.trainjob.keep]
    return [*remembered, "--processes", str(cluster.train_processes)] if cluster.train_processes > 1 else remembered


def _command_line(step: Step, cluster: Cluster, values: dict[str, Any]) -> list[str]:
    """The step's own command line, flag by flag as in dvc.yaml; `dier task` puts the settings in."""
    arguments = [step.name, "--params", NO_SETTINGS]
    for name in step.inputs:
        path = {"work": WORK, "dataset": cluster.dataset.path}.get(name)
        if f"{name}_in" in values:
            given = values[f"{name}_in"]
            path = f"{DATASETS}/{given}" if name == "dataset" and cluster.dataset.claim else given.path
        arguments += [f"--{name}", str(path)]
    return [*arguments, "--out", values[step.kubeflow_output].path]
