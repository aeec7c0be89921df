"""Small pipelines for the stand-in's own tests, made by kfp's compiler as real ones are."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

IMAGE = "image"


@dsl.container_component
def make(word: str, made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=IMAGE, command=["make"], args=["--word", word, "--out", made.path])


@dsl.container_component
def use(given: dsl.Input[dsl.Dataset], used: dsl.Output[dsl.Model]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=IMAGE, command=["use", "{{$}}"], args=[given.path, given.uri, used.path])


@dsl.container_component
def join(parts: dsl.Input[list[dsl.Dataset]], whole: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=IMAGE, command=["join", "{{$}}"], args=[whole.path])


@dsl.container_component
def split(count: int, parts: dsl.OutputPath(list[str])) -> dsl.ContainerSpec:  # type: ignore[valid-type]
    return dsl.ContainerSpec(image=IMAGE, command=["split"], args=[count, parts])


@dsl.container_component
def settings(values: dict, more: float) -> dsl.ContainerSpec:  # type: ignore[type-arg]
    return dsl.ContainerSpec(image=IMAGE, command=["settings"], args=["--values", f'{{"all": {values}}}', "--more", more])


@dsl.container_component
def told(status: dsl.PipelineTaskFinalStatus) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=IMAGE, command=["told"], args=[status])


def compiled(function: Callable[..., Any], **more: Any) -> str:
    """The compiled text of a pipeline's function."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "pipeline.yaml")
        compiler.Compiler().compile(dsl.pipeline(name=function.__name__.replace("_", "-"), **more)(function), file)
        return Path(file).read_text()


def of_one(change: Callable[[Any], Any] | None = None, word: str = "a") -> str:
    """A pipeline of the single task `make`, as root-less as Pod Security wants it, and changed by `change`."""

    def one() -> None:
        task = make(word=word)
        kubernetes.set_security_context(task, 10001, 10001, run_as_non_root=True)
        if change is not None:
            change(task)

    return compiled(one)


def safe(*tasks: Any) -> None:
    """What Pod Security `restricted` wants of a task."""
    for task in tasks:
        kubernetes.set_security_context(task, 10001, 10001, run_as_non_root=True)
