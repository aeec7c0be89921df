"""The pipeline for Kubeflow, and `dier compile`: a task a step, each running the very command line that DVC runs.

A component is a container specification and no code: `dier task ... -- STEP --params ... --out ...`, where what stands after
`--` is the step's command. `dier task` runs it and tells Kubeflow what it made (pipeline/task/task.py). What the cluster is asked
for beside that (GPUs, volumes, secrets) is added in pipeline/kubeflow/placement.py.

With `embed.fan_out` in the cluster file embed is a task a timestep, for sets that keep one task busy for too long:

embed-split ──▶ embed-by-timestep: for each timestep  embed  ──▶ embed-join ──▶ embeddings

embed-split gives the settings of embed once for each timestep. The embed inside the loop is the very component of the pipeline
without fan-out, and embed-join makes one artifact of theirs, the same to the last byte (components/embedding/parts.py). Loop and
join are a pipeline of their own: Kubeflow's local runner loops over a pipeline's parameter, but not over a container's output.
"""

import contextlib
import inspect
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

from components.common import settings as step_settings
from components.common.progress import say
from components.common.settings import SECTIONS, Settings
from model.atomic import write_whole
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.placement import place
from pipeline.steps import BY_NAME, DATASETS, STATE, STEPS, Step
from pipeline.trainjob import manifest

DESCRIPTION = "Unlabelled images to versioned, evaluated diffusion embeddings"
HEAD = "# Made by: dier compile. Change params.yaml, the cluster file or pipeline/kubeflow/pipeline.py, and compile again.\n"
WORK = f"{STATE}/train"
"""Running checkpoints, on a volume (pipeline/kubeflow/placement.py)."""
PERMANENT_FAILURE = f"{STATE}/permanent-failure/" + dsl.PIPELINE_JOB_ID_PLACEHOLDER
"""Where train remembers a failure that no retry can cure."""
TRAINJOB = "dier-" + dsl.PIPELINE_JOB_ID_PLACEHOLDER
"""Its name, the run's: a task that is tried again finds it."""
KFP_TYPE = {step.output: getattr(dsl, step.kfp_type) for step in STEPS}
FINGERPRINT = "dataset_fingerprint"
"""What prepare hands on of a dataset that it leaves on a claim: its name there, and what the cache sees change."""
SPLIT, LOOP, JOIN = "embed-split", "embed-by-timestep", "embed-join"


def compile_to(out: Path, *, cluster: Path, params: Path, allow_tag: bool) -> None:
    """Compile with the defaults of `params` for `cluster` and write `out`, whole or not at all. Raises SettingsError."""
    wanted, defaults = cluster_settings.load(cluster), step_settings.load(params)
    wanted.check_image(allow_tag)
    wanted.check_tracking()
    write_whole(out, compiled(defaults, wanted))
    say(f"compiled {out} (image {wanted.image})")


def compiled(defaults: Settings, wanted: Cluster) -> str:
    """The pipeline as YAML text, and a second document with what Kubernetes is asked for. The same settings give the same bytes."""
    with tempfile.TemporaryDirectory(prefix="dier-compile-") as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "dier.yaml"
        compiler.Compiler().compile(build(defaults, wanted), str(file))
        lines = file.read_text("utf-8").splitlines(keepends=True)
    # the compiler's comment lists the defaults in an order that changes from run to run
    return HEAD + "".join(line for line in lines if not line.startswith("#"))


def build(settings: Settings, cluster: Cluster) -> BaseComponent:
    """The whole pipeline; `settings` are the defaults of its parameters, one JSON object a section."""
    # Kubeflow takes no null inside a JSON parameter; every setting that may be null has null as its default, so it is left out
    defaults = {name: settings.section(name).model_dump(mode="json", exclude_none=True) for name in SECTIONS}
    parts = {step.name: component(step, cluster) for step in STEPS}
    if cluster.embed.fan_out:
        parts |= {SPLIT: _split_component(cluster), LOOP: _loop(parts["embed"], cluster)}

    def dier(*sections: Any) -> None:
        recorded = outcome_component(cluster)()
        recorded.set_caching_options(False)
        place(recorded, None, cluster)
        with dsl.ExitHandler(recorded, name="steps"):
            _tasks(parts, dict(zip(SECTIONS, sections, strict=True)), cluster)

    signed = _signed(dier, dict.fromkeys(SECTIONS, dict), defaults=defaults)
    return dsl.pipeline(name="dier", description=DESCRIPTION)(signed)


def component(step: Step, cluster: Cluster) -> BaseComponent:
    """The container component of a step: its parameters are `SECTION_settings`, then come its artifacts and what the UI shows."""
    annotations: dict[str, Any] = {f"{section}_settings": dict for section in step.sections}
    annotations |= _inputs(step, cluster)
    annotations |= {step.kubeflow_output: dsl.Output[KFP_TYPE[step.output]]}
    annotations |= {name: dsl.Output[getattr(dsl, kind)] for name, kind in step.shown.items()}
    if _keeps_dataset(step, cluster):
        annotations |= {FINGERPRINT: dsl.OutputPath(str)}

    def specification(*given: Any) -> dsl.ContainerSpec:
        values = dict(zip(annotations, given, strict=True))
        return dsl.ContainerSpec(
            image=cluster.image, command=_task(step, cluster, values), args=_command_line(step, cluster, values)
        )

    specification.__name__, specification.__doc__ = step.name, step.help
    return dsl.container_component(_signed(specification, annotations))


def outcome_component(cluster: Cluster) -> BaseComponent:
    """The component that records how the steps ended, whether or not they succeeded."""

    @dsl.container_component  # type: ignore[untyped-decorator]
    def outcome(status: dsl.PipelineTaskFinalStatus, outcome: dsl.Output[dsl.Artifact]) -> dsl.ContainerSpec:
        """Record how the run ended."""
        command = ["dier", "outcome", "--executor-input", "{{$}}"]
        return dsl.ContainerSpec(image=cluster.image, command=command, args=["--status", status, "--out", outcome.path])

    return outcome


def _signed(
    function: Callable[..., Any],
    annotations: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    returns: Any = inspect.Signature.empty,
) -> Callable[..., Any]:
    """`function(*values)` with the signature that kfp reads, which comes from the table of steps and cannot be written by hand."""
    kind, none = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    parameters = [
        inspect.Parameter(name, kind, annotation=annotation, default=(defaults or {}).get(name, none))
        for name, annotation in annotations.items()
    ]
    function.__annotations__ = dict(annotations) | ({} if returns is none else {"return": returns})
    function.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    return function


def _inputs(step: Step, cluster: Cluster) -> dict[str, Any]:
    """The inputs that come from other tasks, by parameter: not the work folder, nor a dataset that is mounted.

    They are Kubeflow's artifacts, each of which its launcher copies into the pod; of a dataset on a claim it is the fingerprint.
    """
    mounted = {"work"} | ({"dataset"} if cluster.dataset.source == "volume" else set())
    kinds = {name: dsl.Input[KFP_TYPE[name]] for name in step.inputs if name not in mounted}
    if "dataset" in kinds and cluster.dataset.claim:
        kinds["dataset"] = str
    return {f"{name}_in": kind for name, kind in kinds.items()}


def _keeps_dataset(step: Step, cluster: Cluster) -> bool:
    """Whether the step leaves its artifact on the claim of datasets, and hands on a fingerprint in its place."""
    return step.output == "dataset" and cluster.dataset.claim is not None


def _task(step: Step, cluster: Cluster, values: dict[str, Any]) -> list[str]:
    """`dier task` up to and including `--`."""
    command = ["dier", "task", "--executor-input", "{{$}}"]
    for name in step.shown:
        command += ["--show", f"{name}={values[name].path}"]
    if step.name == "train":
        command += _train_task(cluster)
    if _keeps_dataset(step, cluster):
        command += ["--keep-in", DATASETS, "--fingerprint-to", values[FINGERPRINT]]
    fingerprint = values["dataset_in"] if cluster.dataset.claim and "dataset_in" in values else cluster.dataset.fingerprint
    if "dataset" in step.inputs and fingerprint:
        command += ["--expect", f"dataset={fingerprint}"]
    return [*command, "--"]


def _train_task(cluster: Cluster) -> list[str]:
    """How the task runs train: in this pod, in several processes, or as a TrainJob on many nodes."""
    remembered = ["--permanent-failure", PERMANENT_FAILURE] if cluster.retry.count or cluster.many_nodes else []
    if cluster.many_nodes:
        job = manifest.manifest(cluster, TRAINJOB, failure_file=PERMANENT_FAILURE)
        return [*remembered, "--trainjob", json.dumps(job, separators=(",", ":")), "--keep", cluster.trainjob.keep]
    return [*remembered, "--processes", str(cluster.train_processes)] if cluster.train_processes > 1 else remembered


def _command_line(step: Step, cluster: Cluster, values: dict[str, Any]) -> list[str]:
    """The step's own command line, flag by flag as in dvc.yaml; settings come as JSON text instead of a file."""
    settings = ", ".join(f'"{section}": {values[section + "_settings"]}' for section in step.sections)
    arguments = [step.name, "--params", f"{{{settings}}}"]
    for name in step.inputs:
        path = {"work": WORK, "dataset": cluster.dataset.path}.get(name)
        if f"{name}_in" in values:
            given = values[f"{name}_in"]
            path = f"{DATASETS}/{given}" if name == "dataset" and cluster.dataset.claim else given.path
        arguments += [f"--{name}", str(path)]
    return [*arguments, "--out", values[step.kubeflow_output].path]


def _tasks(parts: dict[str, BaseComponent], sections: dict[str, Any], cluster: Cluster) -> None:
    """Add a task a step to the pipeline that is being built."""
    made: dict[str, Any] = {}
    if cluster.dataset.source == "importer":
        imported = dsl.importer(artifact_uri=str(cluster.dataset.uri), artifact_class=dsl.Dataset, reimport=False)
        imported.set_display_name("dataset")
        made["dataset"] = imported.output
    for step in STEPS:
        if step.name == "prepare" and cluster.dataset.source != "prepare":
            continue
        settings = {f"{section}_settings": sections[section] for section in step.sections}
        inputs = {parameter: made[parameter.removesuffix("_in")] for parameter in _inputs(step, cluster)}
        if step.name == "embed" and cluster.embed.fan_out:
            made[step.output] = _embeddings(parts, sections["embed"], inputs, cluster)
            continue
        task = parts[step.name](**settings, **inputs)
        if not step.cached:
            task.set_caching_options(False)
        place(task, step.name, cluster)
        made[step.output] = task.outputs[FINGERPRINT if _keeps_dataset(step, cluster) else step.kubeflow_output]


def _embeddings(parts: dict[str, BaseComponent], settings: Any, inputs: dict[str, Any], cluster: Cluster) -> Any:
    """embed as a task a timestep; gives the joined artifact."""
    sections = parts[SPLIT](embed_settings=settings)
    place(sections, None, cluster)
    return parts[LOOP](embed_settings=settings, sections=sections.outputs["sections"], **inputs).output


def _loop(embed: BaseComponent, cluster: Cluster) -> BaseComponent:
    """The loop over timesteps and the join, as a pipeline of their own."""
    inputs, join = _inputs(BY_NAME["embed"], cluster), _join_component(cluster)

    def by_timestep(settings: Any, sections: Any, *artifacts: Any) -> Any:
        with dsl.ParallelFor(sections, name="timesteps", parallelism=cluster.embed.parallelism) as section:
            task = embed(embed_settings=section, **dict(zip(inputs, artifacts, strict=True)))
            place(task, "embed", cluster)
        whole = join(embed_settings=settings, parts=dsl.Collected(task.outputs["embeddings"]))
        place(whole, None, cluster)
        return whole.outputs["embeddings"]

    annotations = {"embed_settings": dict, "sections": list[dict], **inputs}  # type: ignore[type-arg]
    signed = _signed(by_timestep, annotations, returns=dsl.Dataset)
    return dsl.pipeline(name=LOOP, description="embed, a task a timestep")(signed)


def _split_component(cluster: Cluster) -> BaseComponent:
    @dsl.container_component  # type: ignore[untyped-decorator]
    def embed_split(embed_settings: dict, sections: dsl.OutputPath(list[dict])) -> dsl.ContainerSpec:  # type: ignore[type-arg,valid-type]
        """The settings of embed, once for each timestep."""
        arguments = ["--params", f'{{"embed": {embed_settings}}}', "--out", sections]
        return dsl.ContainerSpec(image=cluster.image, command=["dier", SPLIT], args=arguments)

    return embed_split


def _join_component(cluster: Cluster) -> BaseComponent:
    @dsl.container_component  # type: ignore[untyped-decorator]
    def embed_join(
        embed_settings: dict,  # type: ignore[type-arg]
        parts: dsl.Input[list[dsl.Dataset]],
        embeddings: dsl.Output[dsl.Dataset],
    ) -> dsl.ContainerSpec:
        """Make one artifact of the embeddings of every timestep."""
        command = ["dier", "task", "--executor-input", "{{$}}", "--list", "parts", "--"]
        arguments = [JOIN, "--params", f'{{"embed": {embed_settings}}}', "--out", embeddings.path]
        return dsl.ContainerSpec(image=cluster.image, command=command, args=arguments)

    return embed_join
