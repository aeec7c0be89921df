"""The pipeline for Kubeflow: a task a step, each running the very command line that DVC runs.

A component is a container specification and no code: `dier task ... -- STEP --params ... --out ...`, where what stands after
`--` is the step's command. `dier task` runs it and tells Kubeflow what it made (pipeline/task/task.py). What the cluster is asked
for beside that (GPUs, volumes, secrets) is added in pipeline/kubeflow/placement.py.
"""

import inspect
import json
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.common.settings import SECTIONS, Settings
from pipeline.kubeflow import fan_out
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.placement import place
from pipeline.steps import OUTPUT, STATE, STEPS, Step
from pipeline.trainjob import manifest

DESCRIPTION = "Unlabelled images to versioned, evaluated diffusion embeddings"
WORK = f"{STATE}/train"
"""Running checkpoints, on a volume (pipeline/kubeflow/placement.py)."""
SETTLED = f"{STATE}/settled/" + dsl.PIPELINE_JOB_ID_PLACEHOLDER
"""Where train remembers a failure that no retry can cure."""
TRAINJOB = "dier-" + dsl.PIPELINE_JOB_ID_PLACEHOLDER
"""Its name, the run's: a task that is tried again finds it."""

ARTIFACTS: dict[str, type[dsl.Artifact]] = {
    "dataset": dsl.Dataset,
    "verdict": dsl.Artifact,
    "model": dsl.Model,
    "embeddings": dsl.Dataset,
    "probe": dsl.Artifact,
    "report": dsl.Artifact,
    "registration": dsl.Artifact,
}
"""The type of what each step makes, by the name that later steps ask for it."""

SHOWN: dict[str, dict[str, type[dsl.Artifact]]] = {
    "validate": {"page": dsl.HTML},
    "train": {"metrics": dsl.Metrics},
    "probe": {"metrics": dsl.Metrics, "confusion": dsl.ClassificationMetrics, "page": dsl.HTML},
    "report": {"page": dsl.HTML},
}
"""What the UI shows of a step besides its artifact; pipeline/task/task.py writes it."""


def component(step: Step, cluster: Cluster) -> BaseComponent:
    """The container component of a step.

    Its parameters are `SECTION_settings`, its input artifacts, its output and what the UI shows. They come from the table of
    steps, so the signature is made rather than written seven times.
    """
    outputs = {OUTPUT[step.name]: ARTIFACTS[OUTPUT[step.name]], **SHOWN.get(step.name, {})}
    annotations: dict[str, Any] = {f"{section}_settings": dict for section in step.sections}
    annotations |= {f"{name}_in": dsl.Input[ARTIFACTS[name]] for name in _artifacts(step, cluster)}
    annotations |= {name: dsl.Output[kind] for name, kind in outputs.items()}

    def specification(*given: Any) -> dsl.ContainerSpec:
        values = dict(zip(annotations, given, strict=True))
        return dsl.ContainerSpec(
            image=cluster.image, command=_task(step, cluster, values), args=_command_line(step, cluster, values)
        )

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind, annotation=a) for name, a in annotations.items()])
    specification.__name__, specification.__doc__ = step.name, step.help
    specification.__annotations__, specification.__signature__ = annotations, signature  # type: ignore[attr-defined]
    return dsl.container_component(specification)


def _artifacts(step: Step, cluster: Cluster) -> list[str]:
    """The inputs that are Kubeflow's artifacts: not the work folder, nor a dataset that is mounted."""
    mounted = {"work"} | ({"dataset"} if cluster.dataset.source == "volume" else set())
    return [name for name in step.inputs if name not in mounted]


def _task(step: Step, cluster: Cluster, values: dict[str, Any]) -> list[str]:
    """`dier task` up to and including `--`."""
    words = ["dier", "task", "--executor-input", "{{$}}"]
    for name in SHOWN.get(step.name, {}):
        words += ["--show", f"{name}={values[name].path}"]
    if step.name == "train":
        words += _train_task(cluster)
    if "dataset" in step.inputs and cluster.dataset.fingerprint:
        words += ["--expect", f"dataset={cluster.dataset.fingerprint}"]
    return [*words, "--"]


def _train_task(cluster: Cluster) -> list[str]:
    """How the task runs train: in this pod, in several processes, or as a TrainJob on many nodes."""
    settled = ["--settled", SETTLED] if cluster.retry.count or cluster.many_nodes else []
    if cluster.many_nodes:
        job = manifest.manifest(cluster, TRAINJOB, settled_file=SETTLED)
        return [*settled, "--trainjob", json.dumps(job, separators=(",", ":")), "--keep", cluster.trainjob.keep]
    return [*settled, "--processes", str(cluster.train_processes)] if cluster.train_processes > 1 else settled


def _command_line(step: Step, cluster: Cluster, values: dict[str, Any]) -> list[str]:
    """The step's own command line, flag by flag as in dvc.yaml; settings come as JSON text instead of a file."""
    settings = ", ".join(f'"{section}": {values[section + "_settings"]}' for section in step.sections)
    words = [step.name, "--params", f"{{{settings}}}"]
    for name in step.inputs:
        place = {"work": WORK, "dataset": cluster.dataset.path}.get(name)
        words += [f"--{name}", str(values[f"{name}_in"].path if f"{name}_in" in values else place)]
    return [*words, "--out", values[OUTPUT[step.name]].path]


def outcome_component(cluster: Cluster) -> BaseComponent:
    """The component that records how the steps ended, whether or not they succeeded."""

    @dsl.container_component  # type: ignore[untyped-decorator]
    def outcome(status: dsl.PipelineTaskFinalStatus, outcome: dsl.Output[dsl.Artifact]) -> dsl.ContainerSpec:
        """Record how the run ended."""
        words = ["dier", "outcome", "--executor-input", "{{$}}"]
        return dsl.ContainerSpec(image=cluster.image, command=words, args=["--status", status, "--out", outcome.path])

    return outcome


def build(settings: Settings, cluster: Cluster) -> BaseComponent:
    """The whole pipeline; `settings` are the defaults of its parameters, one JSON object a section."""
    # Kubeflow takes no null inside a JSON parameter; every setting that may be null has null as its default, so it is left out
    default = {name: settings.section(name).model_dump(mode="json", exclude_none=True) for name in SECTIONS}
    parts = {step.name: component(step, cluster) for step in STEPS}
    if cluster.embed.fan_out:
        embed_step = next(step for step in STEPS if step.name == "embed")
        inputs = [f"{name}_in" for name in _artifacts(embed_step, cluster)]
        parts |= fan_out.components(parts["embed"], inputs, cluster)

    @dsl.pipeline(name="dier", description=DESCRIPTION)  # type: ignore[untyped-decorator]
    def dier(
        data: dict = default["data"],  # type: ignore[type-arg]
        validate: dict = default["validate"],  # type: ignore[type-arg]
        model: dict = default["model"],  # type: ignore[type-arg]
        train: dict = default["train"],  # type: ignore[type-arg]
        embed: dict = default["embed"],  # type: ignore[type-arg]
        probe: dict = default["probe"],  # type: ignore[type-arg]
        register: dict = default["register"],  # type: ignore[type-arg]
    ) -> None:
        sections = dict(zip(SECTIONS, (data, validate, model, train, embed, probe, register), strict=True))
        recorded = outcome_component(cluster)()
        recorded.set_caching_options(False)
        place(recorded, None, cluster)
        with dsl.ExitHandler(recorded, name="steps"):
            _tasks(parts, sections, cluster)

    return dier


def _tasks(parts: dict[str, BaseComponent], sections: dict[str, Any], cluster: Cluster) -> None:
    made: dict[str, Any] = {}
    if cluster.dataset.source == "importer":
        brought = dsl.importer(artifact_uri=str(cluster.dataset.uri), artifact_class=dsl.Dataset, reimport=False)
        brought.set_display_name("dataset")
        made["dataset"] = brought.output
    for step in STEPS:
        if step.name == "prepare" and cluster.dataset.source != "prepare":
            continue
        settings = {f"{section}_settings": sections[section] for section in step.sections}
        inputs = {f"{name}_in": made[name] for name in _artifacts(step, cluster)}
        if step.name == "embed" and cluster.embed.fan_out:
            made["embeddings"] = fan_out.embeddings(parts, settings["embed_settings"], inputs, cluster)
            continue
        task = parts[step.name](**settings, **inputs)
        if step.name == "register":  # a registry is outside of what a cache can know
            task.set_caching_options(False)
        place(task, step.name, cluster)
        made[OUTPUT[step.name]] = task.outputs[OUTPUT[step.name]]
