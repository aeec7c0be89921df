"""The train task on many nodes: its inputs go onto the shared claim, a TrainJob trains, the model comes back.

The name of the TrainJob comes from the run, so a task that is tried again finds the one that it made and waits on. One that failed
is replaced: the new one goes on from the checkpoints of the old one.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.progress import say
from pipeline.errors import ClusterError
from pipeline.kubeflow import retry
from pipeline.kubeflow.retry import retrying
from pipeline.run_step import flag_value, with_flag_value
from pipeline.steps import STATE
from pipeline.task import permanent_failure
from pipeline.trainjob.client import Jobs
from pipeline.trainjob.manifest import LAUNCH, mount_paths, name_of, named
from pipeline.trainjob.watch import ended, watch

SHARED = Path(STATE) / "trainjob"
"""Where the nodes find inputs and leave the model: on the claim that the task and its pods share."""
COPIED = ("dataset", "verdict")
GONE_S = 300.0


def run_trainjob(manifest: str, argv: list[str], run_id: str, failure_file: Path | None, keep: str) -> int:
    """Run the step `argv` as the TrainJob of the `manifest` (JSON, without name and argv); return the step's exit code.

    It gets its name from the run, and its pods `failure_file`. `keep` says which TrainJobs stay: never, failed or always. Raises
    ClusterError where Kubernetes says no or the TrainJob fails, ArtifactError for a damaged input or model, SettingsError where the
    run has no id.
    """
    name = name_of(run_id)
    job = named(json.loads(manifest), name, str(failure_file) if failure_file else None)
    folder, jobs = SHARED / name, Jobs()
    job["spec"]["trainer"]["args"] = [*LAUNCH, *_shared(argv, folder, mount_paths(job))]
    _ensure(jobs, job)
    try:
        failure = watch(jobs, name, lambda: failure_file is not None and failure_file.is_file())
    except BaseException:  # Ctrl-C too
        say(f"no longer waiting, but the TrainJob goes on: kubectl -n {jobs.namespace} delete trainjob {name} ends it")
        raise
    code = permanent_failure.recall(failure_file) if failure_file and failure else None
    if failure is None:
        artifact.copy(folder / "model", Path(flag_value(argv, "out")), "model")
    over = failure is None or code is not None  # a permanent failure would only be repeated
    if over:
        shutil.rmtree(folder, ignore_errors=True)
    if keep == "never" or (keep == "failed" and over):
        retrying(lambda: jobs.delete(name), f"cannot delete the TrainJob {name}")
    if failure is not None and code is None:
        there = f"; look with kubectl -n {jobs.namespace} describe trainjob {name}" if keep != "never" else ""
        raise ClusterError(f"the TrainJob {name} failed ({failure}){there}; a new try goes on from its checkpoints")
    return code or 0


def _ensure(jobs: Jobs, job: dict[str, Any]) -> None:
    """Make the TrainJob, or find the one that an earlier try made. The name is the run's, so there is never a second one."""
    name = job["metadata"]["name"]
    there = retrying(lambda: jobs.get(name), f"cannot see the TrainJob {name}")
    if there is not None and ((end := ended(there)) is None or end["type"] == "Complete") and not _leaving(there):
        say(f"TrainJob {name}: an earlier try of this task made it; waiting for it")
        return
    if there is not None:
        say(f"TrainJob {name}: an earlier try's {'is being deleted' if _leaving(there) else 'failed'}; it is replaced")
        _remove(jobs, name)
    made = retrying(lambda: jobs.create(job), f"cannot create the TrainJob {name}")
    nodes = job["spec"]["trainer"]["numNodes"]
    say(f"TrainJob {name}: {'created' if made else 'there already'} in {jobs.namespace}, {nodes} nodes")


def _leaving(job: dict[str, Any]) -> bool:
    return bool(job["metadata"].get("deletionTimestamp"))


def _remove(jobs: Jobs, name: str) -> None:
    retrying(lambda: jobs.delete(name), f"cannot delete the TrainJob {name}")
    limit = time.monotonic() + GONE_S
    while retrying(lambda: jobs.get(name), f"cannot see the TrainJob {name}") is not None:
        if time.monotonic() > limit:
            raise ClusterError(
                f"the TrainJob {name} is still there {GONE_S:.0f} s after it was deleted; see its finalizers and pods"
            )
        time.sleep(retry.POLL_S)


def _shared(argv: list[str], folder: Path, mounted: list[str]) -> list[str]:
    """The step's command line as the pods run it: inputs copied to the claim unless the pods mount them, the model beside them."""
    for flag in COPIED:
        source = Path(flag_value(argv, flag))
        if not any(source.is_relative_to(path) for path in mounted):
            argv = with_flag_value(argv, flag, str(artifact.copy(source, folder / flag, flag)))
    return with_flag_value(argv, "out", str(folder / "model"))
