"""The pipeline for Kubeflow, and `dier compile`: a task a step, each running the very command line that DVC runs.

prepare ─▶ validate ─▶ data-gate ─▶ train ─▶ embed ─▶ probe ─▶ report ─▶ register ─▶ model-gate

The components are in pipeline/kubeflow/containers.py; what the cluster is asked for beside them (GPUs, volumes, secrets) is added
in pipeline/kubeflow/placement.py. A failed task keeps nothing but its log on Kubeflow, so validate and register end well once
their artifact is whole, and a gate, a task of its own, ends the run.

With `embed.fan_out` in the cluster file embed is a task a timestep, and with `embed.parts` a task a timestep and part of the
shards, for sets that keep one task busy for too long:

embed-split ──▶ embed-by-timestep: for each timestep and part  embed  ──▶ embed-join ──▶ embeddings

embed-split gives the settings of embed once for each of them. The embed inside the loop is the very component of the pipeline
without fan-out, and embed-join makes one artifact of theirs, the same to the last byte (components/embedding/parts.py). Loop and
join are a pipeline of their own: Kubeflow's local runner loops over a pipeline's parameter, but not over a container's output.
"""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

from components.common import settings as step_settings
from components.common.progress import say
from components.common.settings import Settings
from model.atomic import write_whole
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow import containers, parameters
from pipeline.kubeflow.argument_limits import check_arguments, embedded_apart
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.containers import FINGERPRINT, inputs, keeps_dataset, signed
from pipeline.kubeflow.placement import place
from pipeline.steps import BY_NAME, JOIN, LOOP, OUTCOME, SPLIT, STEPS

DESCRIPTION = "Unlabelled images to versioned, evaluated diffusion embeddings"
HEAD = "# Made by: dier compile. Change params.yaml, the cluster file or pipeline/kubeflow/pipeline.py, and compile again.\n"


def compile_to(out: Path, *, cluster: Path, params: Path, allow_tag: bool) -> None:
    """Compile with the defaults of `params` for `cluster` and write `out`, whole or not at all. Raises SettingsError."""
    wanted, defaults = cluster_settings.load(cluster), step_settings.load(params)
    wanted.check_image(allow_tag)
    wanted.check_tracking()
    wanted.check_store(defaults.data.store)
    if wanted.embed.fan_out:
        check_arguments(embedded_apart(defaults.embed.timesteps), wanted.embed.parts)
    write_whole(out, compiled(defaults, wanted))
    say(f"compiled {out} (image {wanted.image})")


def compiled(defaults: Settings, wanted: Cluster) -> str:
    """The pipeline as YAML text, and a second document with what Kubernetes is asked for. The same settings give the same bytes."""
    return HEAD + yaml_of(build(defaults, wanted))


def yaml_of(built: BaseComponent) -> str:
    """What kfp writes of a pipeline or a component, without its comments, whose order changes from run to run."""
    with tempfile.TemporaryDirectory(prefix="dier-compile-") as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "dier.yaml"
        compiler.Compiler().compile(built, str(file))
        lines = file.read_text("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def build(settings: Settings, cluster: Cluster) -> BaseComponent:
    """The whole pipeline; `settings` are the defaults of its parameters (pipeline/kubeflow/parameters.py)."""
    defaults = parameters.defaults(settings)
    parts = {step.name: containers.step_component(step, cluster) for step in STEPS}
    parts |= {step.gate: containers.gate_component(step, cluster) for step in STEPS if step.gate}
    if cluster.embed.fan_out:
        parts |= {SPLIT: containers.split_component(cluster), LOOP: _loop(parts["embed"], cluster)}

    def dier(*given: Any) -> None:
        values = dict(zip(defaults, given, strict=True))
        if not cluster.has_outcome:  # the steps are then the first picture that a person sees of the run
            _tasks(parts, values, cluster)
            return
        recorded = containers.outcome_component(cluster)()
        recorded.set_caching_options(False)
        place(recorded, OUTCOME, cluster)
        with dsl.ExitHandler(recorded, name="steps"):
            _tasks(parts, values, cluster)

    dier.__doc__ = _documented()
    config = dsl.PipelineConfig(ttl_seconds_after_finished=cluster.run.keep, active_deadline_seconds=cluster.run.deadline)
    wanted = dsl.pipeline(name="dier", pipeline_config=config)
    return wanted(signed(dier, {name: type(value) for name, value in defaults.items()}, defaults=defaults))


def _documented() -> str:
    """What kfp takes the parameters' descriptions from: a docstring."""
    said = "\n".join(f"    {name}: {text}" for name, text in parameters.descriptions().items())
    return f"{DESCRIPTION}\n\nArgs:\n{said}\n"


def _tasks(parts: dict[str, BaseComponent], values: dict[str, Any], cluster: Cluster) -> None:
    """Add a task a step to the pipeline that is being built."""
    made: dict[str, Any] = {}
    gates: dict[str, Any] = {}
    if cluster.dataset.source == "importer":
        # no display name: an importer would publish itself under that, and its consumers not find it (kubeflow/pipelines #11173)
        made["dataset"] = dsl.importer(artifact_uri=str(cluster.dataset.uri), artifact_class=dsl.Dataset, reimport=False).output
    for step in STEPS:
        if step.name == "prepare" and cluster.dataset.source != "prepare":
            continue
        given = {parameter: values[source] for parameter, source in parameters.of_task(step.sections).items()}
        artifacts = {parameter: made[parameter.removesuffix("_in")] for parameter in inputs(step, cluster)}
        if step.name == "embed" and cluster.embed.fan_out:
            made[step.output] = _embeddings(parts, given, artifacts, cluster)
            continue
        task = parts[step.name](**given, **artifacts)
        if not step.cached:
            task.set_caching_options(False)
        for passed in (gates.pop(name) for name in step.inputs if name in gates):
            task.after(passed)  # the first step that reads it: those behind wait for that one
        place(task, step.name, cluster)
        made[step.output] = task.outputs[FINGERPRINT if keeps_dataset(step, cluster) else step.kubeflow_output]
        if step.gate:
            gates[step.output] = parts[step.gate](**{f"{step.output}_in": made[step.output]})
            gates[step.output].set_caching_options(step.cached)
            place(gates[step.output], step.gate, cluster)


def _embeddings(parts: dict[str, BaseComponent], given: dict[str, Any], artifacts: dict[str, Any], cluster: Cluster) -> Any:
    """embed as a task a timestep and part; gives the joined artifact."""
    sections = parts[SPLIT](**given)
    place(sections, SPLIT, cluster)
    return parts[LOOP](**given, sections=sections.outputs["sections"], **artifacts).output


def _loop(embed: BaseComponent, cluster: Cluster) -> BaseComponent:
    """The loop over timesteps and parts, and the join, as a pipeline of their own."""
    section = "embed" + parameters.SUFFIX
    settings = parameters.types(list(parameters.of_task(["embed"])))
    artifacts, join = inputs(BY_NAME["embed"], cluster), containers.join_component(cluster)

    def by_timestep(*given: Any) -> Any:
        values = dict(zip(annotations, given, strict=True))
        whole = {name: values[name] for name in settings}
        with dsl.ParallelFor(values["sections"], name="timesteps", parallelism=cluster.embed.parallelism) as part:
            # the part's section says its own timestep, which counts; the list of all would be in the cache's key of each
            one = {section: part, **{name: [] for name in parameters.own(["embed"])}}
            task = embed(**one, **{name: values[name] for name in artifacts})
            place(task, "embed", cluster)
        joined = join(**whole, parts=dsl.Collected(task.outputs["embeddings"]))
        place(joined, JOIN, cluster)
        return joined.outputs["embeddings"]

    annotations: dict[str, Any] = {**settings, "sections": list[dict], **artifacts}  # type: ignore[type-arg]
    loop = dsl.pipeline(name=LOOP, description="embed, a task a timestep")
    return loop(signed(by_timestep, annotations, returns=dsl.Dataset))
