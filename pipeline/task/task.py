"""Inside a Kubeflow task: run a step's own command line, and tell Kubeflow what it made.

Kubeflow hands a task one JSON document, the executor input, and reads one back, `executor_output.json`: per output artifact its
metadata, which is what the UI shows of metrics. Protocol: kfp's pipeline_spec.proto, ExecutorInput and ExecutorOutput.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.progress import say
from model.atomic import write_whole
from pipeline.task import permanent_failure as remembered
from pipeline.task import ui_metadata
from pipeline.task.command_line import value


def run_task(
    executor_input: str,
    words: Sequence[str],
    *,
    show: Sequence[str] = (),
    expect: Sequence[str] = (),
    lists: Sequence[str] = (),
    settled: Path | None = None,
    processes: int = 1,
    trainjob: str | None = None,
    keep: str = "failed",
) -> int:
    """Run the step `words` and write the executor output; return the step's exit code.

    `show` lists `NAME=PATH` of outputs for the UI, `expect` lists `INPUT=FINGERPRINT` that an input artifact must have, `lists`
    inputs that are several artifacts, each of which is added to `words` as `--NAME PATH`. Where
    `settled` names a file, a failure that no retry can cure is remembered there and repeated at once on the next try. The step
    runs here, in as many `processes`, or on many nodes as the TrainJob whose manifest (JSON) is given; `keep`: which of those stay.
    """
    given = _parse(executor_input)
    words = list(words[1:] if words[:1] == ["--"] else words)
    words += [word for name in lists for path in _listed(given, name) for word in (f"--{name}", path)]
    if settled is not None and (code := remembered.recall(settled)) is not None:
        say(f"an earlier try of this run ended with exit code {code}, which a retry cannot cure: see the log of the first try")
        return code
    for pair in expect:
        _check_fingerprint(words, pair)
    if trainjob is not None:
        from pipeline.trainjob.run import run_trainjob

        code = run_trainjob(trainjob, words, settled, keep)
    else:
        code = _run(words, processes)
    out = Path(value(words, "out"))
    if (out / artifact.MANIFEST).is_file():
        _tell(given, words[0], out, [pair.split("=", 1) for pair in show])
    if settled is not None:
        remembered.remember(settled, code)
    return code


def _run(words: list[str], processes: int) -> int:
    if processes > 1:
        from pipeline.task.torchrun import run_processes

        return run_processes(words, processes)
    from pipeline.cli import main

    return main(words)


def record_outcome(executor_input: str, status: str, out: Path) -> None:
    """Write how the run ended as an artifact, `outcome.json`; Kubeflow runs this whether or not the steps succeeded."""
    given, ended = _parse(executor_input), json.loads(status)
    error = ended.get("error") or {}
    outcome = {
        "state": str(ended.get("state", "unknown")),
        "run": str(ended.get("pipelineJobResourceName", "unknown")),
        "message": str(error.get("message", "")),
    }
    with artifact.create(out, "outcome", {}) as folder:
        artifact.write_json(folder / "outcome.json", outcome)
    _write(given, {_name_of(given, out): outcome})
    say(f"run {outcome['run']}: {outcome['state']}{' - ' + outcome['message'] if outcome['message'] else ''}")


def _parse(executor_input: str) -> dict[str, Any]:
    try:
        given = json.loads(executor_input)
        given["outputs"]["outputFile"]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"--executor-input is no executor input ({error!r}); dier task runs inside Kubeflow") from error
    return dict(given)


def _listed(given: dict[str, Any], name: str) -> list[str]:
    """Where the artifacts of an input lie that is a list of them: no placeholder of Kubeflow gives their paths."""
    from kfp import dsl

    try:
        found = given["inputs"]["artifacts"][name]["artifacts"]
        return [str(dsl.Artifact(uri=one["uri"], metadata=one.get("metadata", {})).path) for one in found]
    except (KeyError, TypeError) as error:
        raise SettingsError(f"the executor input has no input artifacts {name} ({error!r})") from error


def _check_fingerprint(words: list[str], pair: str) -> None:
    name, _, expected = pair.partition("=")
    manifest = Path(value(words, name)) / artifact.MANIFEST
    if not manifest.is_file():
        raise ArtifactError(f"no {name} artifact at {manifest.parent}: check the cluster file's dataset section and the volume")
    found = artifact.sha256(manifest)
    if found != expected:
        raise ArtifactError(
            f"the {name} at {manifest.parent} has the fingerprint {found}, the cluster file expects {expected}: "
            "compile again with the new one if the change is meant"
        )


def _tell(given: dict[str, Any], step: str, out: Path, show: Sequence[Sequence[str]]) -> None:
    metadata = {_name_of(given, out): {"fingerprint": artifact.sha256(out / artifact.MANIFEST), **ui_metadata.describe(step, out)}}
    for name, place in show:
        metadata[name] = ui_metadata.show(step, name, out, Path(place))
    _write(given, metadata)


def _name_of(given: dict[str, Any], out: Path) -> str:
    """Which output artifact `out` is: its URI ends as the path does, whatever Kubeflow's mount of the store is called."""
    for name, found in given["outputs"]["artifacts"].items():
        if found["artifacts"][0]["uri"].rstrip("/").rsplit("/", 1)[-1] == out.name:
            return str(name)
    raise SettingsError(f"no output artifact of the task lies at {out}; --out must be the path that Kubeflow gives")


def _write(given: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Write the executor output."""
    artifacts = {}
    for name, found in metadata.items():
        told = given["outputs"]["artifacts"][name]["artifacts"][0]
        artifacts[name] = {"artifacts": [{"name": told["name"], "uri": told["uri"], "metadata": found}]}
    write_whole(Path(given["outputs"]["outputFile"]), json.dumps({"artifacts": artifacts}, allow_nan=False))
