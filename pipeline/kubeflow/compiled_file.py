"""A compiled pipeline, read: its documents, images, steps and default settings. Talks to no cluster and no engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.common.errors import SettingsError
from components.common.settings import NOT_YAML, Settings, override, parse, why_not_yaml
from components.monitoring.decision import check_alpha
from pipeline.kubeflow import parameters
from pipeline.steps import MONITORING


@dataclass(frozen=True)
class Package:
    """What a compiled file says."""

    path: Path
    name: str
    spec: dict[str, Any]
    """The pipeline: the first document."""
    platform: dict[str, Any]
    """What Kubernetes is asked for: the second document, empty where there is none."""
    images: tuple[str, ...]
    """The images that its containers run, each once."""
    steps: tuple[str, ...]
    """Names of the tasks that run a container."""
    defaults: dict[str, Any]
    """Its parameters, as compiled."""


def read(path: Path) -> Package:
    """Read and check a compiled pipeline. Raises SettingsError with one line."""
    documents = _documents(path)
    spec, platform = documents[0], documents[1] if len(documents) == 2 else {}
    _check(path, spec, platform)
    try:
        executors = spec["deploymentSpec"]["executors"].values()
        known = spec["root"]["inputDefinitions"]["parameters"]
        found = Package(
            path=path,
            name=spec["pipelineInfo"]["name"],
            spec=spec,
            platform=platform,
            images=tuple(sorted({executor["container"]["image"] for executor in executors if "container" in executor})),
            steps=tuple(steps(spec)),
            defaults={name: known[name]["defaultValue"] for name in _parameters(spec)},
        )
    except KeyError as error:
        raise SettingsError(f"{path} is no compiled pipeline of dier: it lacks {error}; make it with dier compile") from error
    return found


def arguments(package: Package, overrides: Sequence[str]) -> dict[str, Any]:
    """The parameters that `section.key=value` overrides touch, as JSON values: what a run is given beside the defaults.

    Raises SettingsError naming the key.
    """
    if package.name == MONITORING:
        return _plain(package, overrides)
    raw = parameters.merged(package.defaults)
    parse(raw, str(package.path))
    for text in overrides:
        override(raw, text, "--param")
    keys = [text.partition("=")[0].strip() for text in overrides]
    return parameters.changed(parse(raw, "--param"), keys)


def _parameters(spec: dict[str, Any]) -> list[str]:
    """Those that a compiled file must have: of the pipeline that watches new images its own."""
    monitoring = spec["pipelineInfo"]["name"] == MONITORING
    return list(spec["root"]["inputDefinitions"]["parameters"] if monitoring else parameters.defaults(Settings()))


def _plain(package: Package, overrides: Sequence[str]) -> dict[str, Any]:
    """`name=value` for a pipeline whose parameters are no settings. Raises SettingsError."""
    given: dict[str, Any] = {}
    for text in overrides:
        name, sign, value = text.partition("=")
        if not sign or name not in package.defaults:
            raise SettingsError(f"--param {text!r}: {package.name} takes NAME=VALUE of {', '.join(package.defaults)}")
        given[name] = _value(text, value, type(package.defaults[name]))
        if name == "alpha":
            check_alpha(given[name], f"--param {name}")
    return given


def _value(text: str, value: str, kind: type[Any]) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise SettingsError(f"--param {text!r}: {value!r} is neither true nor false")
        return value == "true"
    try:
        return kind(value)
    except ValueError as error:
        raise SettingsError(f"--param {text!r}: {value!r} is no number") from error


def dags(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Every graph of tasks, by task name: the root's, and those inside it, such as an exit handler's."""
    holders = [spec["root"], *spec.get("components", {}).values()]
    return [holder["dag"].get("tasks", {}) for holder in holders if "dag" in holder]


def _documents(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the compiled pipeline {path}: {getattr(error, 'strerror', None) or error}; make it with dier compile"
        ) from error
    try:
        found = list(yaml.safe_load_all(text))
    except NOT_YAML as error:
        raise SettingsError(f"{path} is not YAML: {why_not_yaml(error)}; make it with dier compile") from error
    if len(found) not in (1, 2) or not all(isinstance(document, dict) for document in found):
        raise SettingsError(f"{path} is no compiled pipeline: it must hold one or two YAML mappings; make it with dier compile")
    return found


def _check(path: Path, spec: dict[str, Any], platform: dict[str, Any]) -> None:
    """The strict parse that the cluster does too: an unknown field is an error."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        why = " ".join(str(error).partition("Available Fields")[0].split())[:200].rstrip(".")
        raise SettingsError(f"{path} is no compiled pipeline: {why}; make it with dier compile") from error


def steps(spec: dict[str, Any]) -> list[str]:
    """Names of the tasks that run a container."""
    components = spec["components"]
    tasks = [task for dag in dags(spec) for task in dag.items()]
    return [name for name, task in tasks if "executorLabel" in components[task["componentRef"]["name"]]]
