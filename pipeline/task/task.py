"""Inside a Kubeflow task: run a step's own command line, and tell Kubeflow what it made (pipeline/task/executor.py)."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.errors import ArtifactError
from components.common.progress import say
from model.atomic import write_whole
from pipeline import run_step
from pipeline.run_step import flag_value, with_flag_value
from pipeline.steps import OUTPUT
from pipeline.task import executor, permanent_failure, ui_metadata, ui_outputs, work_folder
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
    is remembered there and repeated at once on the next try. `gated` names the task that ends the run where the artifact, once
    whole, says no: this one then ends well, since Kubeflow keeps nothing of a failed task. The step runs here, in as many
    `processes`, or on many nodes as the TrainJob whose manifest (JSON) is given; `keep`: which of those stay.
    """
    given = executor.parse(executor_input)
    argv = list(argv[1:] if argv[:1] == ["--"] else argv)
    if sections := executor.settings_in(given):
        argv = with_flag_value(argv, "params", json.dumps(sections))
    argv += [word for name in lists for path in executor.listed(given, name) for word in (f"--{name}", path)]
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
    try:
        code = _run_step(argv, processes, trainjob, failure_file, keep)
    except Exception as error:  # of what is around a TrainJob, such as a damaged input: a step itself ends with a code
        if failure_file is not None:
            permanent_failure.remember(failure_file, run_step.exit_code(error))
        raise
    if _written(out) not in (None, before):
        executor.write(given, _metadata(given, argv[0], out, [pair.split("=", 1) for pair in show]))
        if keep_in is not None:
            _keep(out, OUTPUT[argv[0]], keep_in, fingerprint_to)
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


def _keep(made: Path, kind: str, folder: Path, fingerprint_to: Path | None) -> None:
    """Copy the artifact to `folder`/FINGERPRINT unless it is there: others read it in place, instead of a copy each."""
    fingerprint = artifact.read(made, kind, check=False).fingerprint
    place = artifact.copy(made, folder / fingerprint, kind)
    if fingerprint_to is not None:
        write_whole(fingerprint_to, fingerprint)
    say(f"the {kind} is at {place}, for the tasks that read it there")


def _metadata(given: dict[str, Any], step: str, out: Path, show: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Of each output artifact what the UI shows. The step is done: what cannot be shown is said, and changes nothing else."""
    described = _shown(step, lambda: ui_metadata.describe(step, out))
    metadata = {executor.name_of(given, out): {"fingerprint": artifact.sha256(out / artifact.MANIFEST), **described}}
    for name, place in show:
        metadata[name] = _shown(f"{step}'s {name}", partial(ui_outputs.show, step, name, out, Path(place)))
    return metadata


def _shown(what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return make()
    except Exception as error:
        say(run_step.one_line(f"the UI will not show {what}: {type(error).__name__}: {error}; the artifact itself is whole"))
        return {}
