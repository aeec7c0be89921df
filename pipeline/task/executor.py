"""What Kubeflow hands a task, one JSON document, the executor input, and what it reads back, `executor_output.json`.

Read back is, per output artifact, its metadata, which is what the UI shows of metrics. Protocol: kfp's pipeline_spec.proto,
ExecutorInput and ExecutorOutput.
"""

import json
from pathlib import Path
from typing import Any

from components.common.errors import SettingsError
from model.atomic import write_whole
from pipeline.kubeflow import parameters
from pipeline.task import ui_metadata


def parse(executor_input: str) -> dict[str, Any]:
    """The executor input. Raises SettingsError where it is none."""
    try:
        given = json.loads(executor_input)
        given["outputs"]["outputFile"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(f"--executor-input is no executor input ({error!r}); dier task runs inside Kubeflow") from error
    return dict(given)


def settings_in(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of settings that the task was given as parameters; empty where it has none."""
    values = given.get("inputs", {}).get("parameterValues", {})
    try:
        return parameters.of_executor_input(values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"the task's parameters {', '.join(values)} are not a JSON object a section ({error})") from error


def listed(given: dict[str, Any], name: str) -> list[str]:
    """Where the artifacts of an input lie that is a list of them: no placeholder of Kubeflow gives their paths."""
    from kfp import dsl

    try:
        found = given["inputs"]["artifacts"][name]["artifacts"]
        return [str(dsl.Artifact(uri=one["uri"], metadata=one.get("metadata", {})).path) for one in found]
    except (KeyError, TypeError) as error:
        raise SettingsError(f"the executor input has no input artifacts {name} ({error!r})") from error


def name_of(given: dict[str, Any], out: Path) -> str:
    """Which output artifact `out` is: its URI ends as the path does, whatever Kubeflow's mount of the store is called."""
    for name, found in given["outputs"]["artifacts"].items():
        if found["artifacts"][0]["uri"].rstrip("/").rsplit("/", 1)[-1] == out.name:
            return str(name)
    raise SettingsError(f"no output artifact of the task lies at {out}; --out must be the path that Kubeflow gives")


def write(given: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write the executor output, whatever is in `metadata` that Kubeflow's launcher would refuse left out."""
    artifacts = {}
    for name, found in metadata.items():
        told = given["outputs"]["artifacts"][name]["artifacts"][0]
        told = {key: told[key] for key in ("name", "uri") if key in told}  # Kubeflow below 2.15 gives no name
        artifacts[name] = {"artifacts": [{**told, "metadata": ui_metadata.storable(found)}]}
    write_whole(Path(given["outputs"]["outputFile"]), json.dumps({"artifacts": artifacts}, allow_nan=False))
