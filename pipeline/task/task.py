"""Inside a Kubeflow task: run a step's own command line, and tell Kubeflow what it made.

Kubeflow hands a task one JSON document, the executor input, and reads one back, `executor_output.json`: per output artifact its
metadata, which is what the UI shows of metrics. Protocol: kfp's pipeline_spec.proto, ExecutorInput and ExecutorOutput.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.progress import say
from model.atomic import write_whole
from pipeline import run_step
from pipeline.kubeflow import parameters
from pipeline.run_step import flag_value, with_flag_value
from pipeline.steps import OUTPUT
from pipeline.task import kept, permanent_failure, ui_metadata, ui_outputs, work_folder
from pipeline.task.run_id import run_id

GATED = (3, 4)
"""What a gate says no with: the data, or the model."""


def run_task(
    executor_input: str,
    argv: Sequence[str],
    *,
    show: Sequence[str] = (),
    expect: Sequence[str] = (),
    lists: Sequence[str] = (),
    failures: Path | None = None,
    keep_in: Path | None = None,
    fingerprint_to: Path | None = None,
    gated: str | None = None,
    processes: int = 1,
    trainjob: str | None = None,
    keep: str = "failed",
) -> int:
    """Run the step with the command line `argv` and write the executor output; return the step's exit code.

    `show` lists `NAME=PATH` of outputs for the UI, `expect` lists `INPUT=FINGERPRINT` that an input artifact must have, `lists`
    inputs that are several artifacts, each of which is added to `argv` as `--NAME PATH`. `keep_in` gets a copy of the artifact,
    named by its fingerprint, which is written to `fingerprint_to`. Where `failures` names a folder, a permanent failure of this run
    is remembered there and repeated at once on the next try. `gated` names the task that ends the
    run where the artifact, once whole, says no: this one then ends well, since Kubeflow keeps nothing of a failed task. The step
    runs here, in as many `processes`, or on many nodes as the TrainJob whose manifest (JSON) is given; `keep`: which of those stay.
    """
    given = parse(executor_input)
    argv = _with_parameters(given, list(argv[1:] if argv[:1] == ["--"] else argv))
    argv += [word for name in lists for path in _listed(given, name) for word in (f"--{name}", path)]
    failure_file = failures / run_id() if failures is not None else None
    if failure_file is not None and (code := permanent_failure.recall(failure_file)) is not None:
        say(f"an earlier try of this run ended with exit code {code}, which a retry cannot cure: see the log of the first try")
        return code
    work_folder.check(argv)
    for pair in expect:
        _check_fingerprint(argv, pair)
    if keep_in is not None:
        work_folder.check_writable(keep_in)
    out = Path(flag_value(argv, "out"))
    before = _written(out)
    code = _run_step(argv, processes, trainjob, failure_file, keep)
    if _written(out) not in (None, before):
        write(given, _metadata(given, argv[0], out, [pair.split("=", 1) for pair in show]))
        if keep_in is not None:
            kept.keep(out, OUTPUT[argv[0]], keep_in, fingerprint_to)
        if gated and code in GATED:
            say(f"the {argv[0]} artifact is whole and kept with its pages; the task {gated} ends the run")
            code = 0
    if failure_file is not None:
        permanent_failure.remember(failure_file, code)
    return code


def _written(out: Path) -> tuple[int, int] | None:
    """Which artifact lies there; None for none."""
    manifest = out / artifact.MANIFEST
    return (manifest.stat().st_ino, manifest.stat().st_mtime_ns) if manifest.is_file() else None


def _run_step(argv: list[str], processes: int, trainjob: str | None, failure_file: Path | None, keep: str) -> int:
    if trainjob is not None:
        from pipeline.trainjob.run import run_trainjob

        return run_trainjob(trainjob, argv, run_id(), failure_file, keep)
    if processes > 1:
        from pipeline.task.torchrun import run_processes

        return run_processes(argv, processes)
    return run_step.run(argv)


def parse(executor_input: str) -> dict[str, Any]:
    """The executor input. Raises SettingsError where it is none."""
    try:
        given = json.loads(executor_input)
        given["outputs"]["outputFile"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(f"--executor-input is no executor input ({error!r}); dier task runs inside Kubeflow") from error
    return dict(given)


def _with_parameters(given: dict[str, Any], argv: list[str]) -> list[str]:
    """The step's command line with the settings that the task was given as parameters."""
    values = given.get("inputs", {}).get("parameterValues", {})
    try:
        sections = parameters.of_executor_input(values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"the task's parameters {', '.join(values)} are not a JSON object a section ({error})") from error
    return with_flag_value(argv, "params", json.dumps(sections)) if sections else argv


def _listed(given: dict[str, Any], name: str) -> list[str]:
    """Where the artifacts of an input lie that is a list of them: no placeholder of Kubeflow gives their paths."""
    from kfp import dsl

    try:
        found = given["inputs"]["artifacts"][name]["artifacts"]
        return [str(dsl.Artifact(uri=one["uri"], metadata=one.get("metadata", {})).path) for one in found]
    except (KeyError, TypeError) as error:
        raise SettingsError(f"the executor input has no input artifacts {name} ({error!r})") from error


def _check_fingerprint(argv: list[str], pair: str) -> None:
    name, _, expected = pair.partition("=")
    manifest = Path(flag_value(argv, name)) / artifact.MANIFEST
    if not manifest.is_file():
        raise ArtifactError(f"no {name} artifact at {manifest.parent}: check the cluster file's dataset section and the volume")
    found = artifact.sha256(manifest)
    if found != expected:
        raise ArtifactError(
            f"the {name} at {manifest.parent} is not the one of the cluster file, {expected[:12]}: its fingerprint is {found}; "
            "compile again with that if the change is meant"
        )


def _metadata(given: dict[str, Any], step: str, out: Path, show: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Of each output artifact what the UI shows. The step is done: what cannot be shown is said, and changes nothing else."""
    described = _shown(step, lambda: ui_metadata.describe(step, out))
    metadata = {name_of(given, out): {"fingerprint": artifact.sha256(out / artifact.MANIFEST), **described}}
    for name, place in show:
        metadata[name] = _shown(f"{step}'s {name}", partial(ui_outputs.show, step, name, out, Path(place)))
    return metadata


def _shown(what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return make()
    except Exception as error:
        say(run_step.one_line(f"the UI will not show {what}: {type(error).__name__}: {error}; the artifact itself is whole"))
        return {}


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
