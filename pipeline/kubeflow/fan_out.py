"""embed as one task a timestep (`embed.fan_out` in the cluster file), for sets that keep one task busy for too long.

embed-split ──▶ embed-by-timestep: for each timestep  embed  ──▶ embed-join ──▶ embeddings

embed-split gives the settings of embed once for each timestep. The embed inside the loop is the very component of the pipeline
without fan-out, and embed-join makes one artifact of theirs, the same to the last byte (components/embedding/parts.py). Loop and
join are a pipeline of their own: Kubeflow's local runner loops over a pipeline's parameter, but not over a container's output.
"""

import inspect
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.placement import place

SPLIT, LOOP, JOIN = "embed-split", "embed-by-timestep", "embed-join"


def components(embed: BaseComponent, inputs: list[str], cluster: Cluster) -> dict[str, BaseComponent]:
    """What `embeddings` needs, by task name; `inputs` are the names of the artifacts that the component `embed` takes."""
    return {SPLIT: _split_component(cluster), LOOP: _loop(embed, inputs, _join_component(cluster), cluster)}


def embeddings(parts: dict[str, BaseComponent], settings: Any, inputs: dict[str, Any], cluster: Cluster) -> Any:
    """Add the tasks that make the embeddings from the section `settings` and the artifacts `inputs`; give the joined artifact."""
    sections = parts[SPLIT](embed_settings=settings)
    place(sections, None, cluster)
    return parts[LOOP](embed_settings=settings, sections=sections.outputs["sections"], **inputs).output


def _loop(embed: BaseComponent, inputs: list[str], join: BaseComponent, cluster: Cluster) -> BaseComponent:
    """The loop and the join, as a pipeline of their own."""
    kinds = {"dataset_in": dsl.Input[dsl.Dataset], "model_in": dsl.Input[dsl.Model]}
    annotations = {"embed_settings": dict, "sections": list[dict], **{name: kinds[name] for name in inputs}}  # type: ignore[type-arg]

    def by_timestep(settings: Any, sections: Any, *artifacts: Any) -> Any:
        with dsl.ParallelFor(sections, name="timesteps", parallelism=cluster.embed.parallelism) as section:
            task = embed(embed_settings=section, **dict(zip(inputs, artifacts, strict=True)))
            place(task, "embed", cluster)
        whole = join(embed_settings=settings, parts=dsl.Collected(task.outputs["embeddings"]))
        place(whole, None, cluster)
        return whole.outputs["embeddings"]

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in annotations.items()]
    by_timestep.__annotations__ = {**annotations, "return": dsl.Dataset}
    by_timestep.__signature__ = inspect.Signature(parameters, return_annotation=dsl.Dataset)  # type: ignore[attr-defined]
    return dsl.pipeline(name=LOOP, description="embed, a task a timestep")(by_timestep)


def _split_component(cluster: Cluster) -> BaseComponent:
    @dsl.container_component  # type: ignore[untyped-decorator]
    def embed_split(embed_settings: dict, sections: dsl.OutputPath(list[dict])) -> dsl.ContainerSpec:  # type: ignore[type-arg,valid-type]
        """The settings of embed, once for each timestep."""
        words = ["--params", f'{{"embed": {embed_settings}}}', "--out", sections]
        return dsl.ContainerSpec(image=cluster.image, command=["dier", SPLIT], args=words)

    return embed_split


def _join_component(cluster: Cluster) -> BaseComponent:
    @dsl.container_component  # type: ignore[untyped-decorator]
    def embed_join(
        embed_settings: dict,  # type: ignore[type-arg]
        parts: dsl.Input[list[dsl.Dataset]],
        embeddings: dsl.Output[dsl.Dataset],
    ) -> dsl.ContainerSpec:
        """Make one artifact of the embeddings of every timestep."""
        task = ["dier", "task", "--executor-input", "{{$}}", "--list", "parts", "--"]
        words = [JOIN, "--params", f'{{"embed": {embed_settings}}}', "--out", embeddings.path]
        return dsl.ContainerSpec(image=cluster.image, command=task, args=words)

    return embed_join
