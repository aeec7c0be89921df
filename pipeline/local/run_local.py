"""`dier run-local`: the compiled pipeline in containers on this machine, through kfp's own local runner.

The containers get what a careful cluster gives them: a read-only root, no capabilities, a numeric user, no network unless asked.
An engine's word that a step succeeded is not believed (one of them reports success for failures): a step counts as done when its
artifact is there and matches its manifest.
"""

import contextlib
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from components.common.progress import say
from pipeline.errors import EngineError
from pipeline.kubeflow import compiled_file
from pipeline.local import artifacts, engine
from pipeline.task import permanent_failure


def run_local(
    pipeline: Path, *, image: str | None, root: Path, mounts: list[str], network: str, params: list[str], cache: bool
) -> dict[str, Path]:
    """Run `pipeline` and give where each artifact lies. Raises SettingsError for bad parameters, EngineError where a step failed:
    it carries the step's exit code, which the step leaves in `work/`, since kfp's runner does not pass it on.

    Below `root`: `runs/` (what Kubeflow's runner keeps, a folder a run), `work/` (checkpoints, MLflow's SQLite file), `logs/`,
    and `artifacts/`, links to the latest run's.
    """
    import docker

    compiled = compiled_file.read(pipeline)
    arguments = compiled_file.arguments(compiled, params)
    client = engine.connect()
    spec = engine.with_image(compiled, image, client)
    root = root.absolute()
    _folders(root)
    run = f"local-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    log = root / "logs" / f"{run}.log"
    say(f"run-local: {pipeline} in containers, log {log}")
    start, before = time.monotonic(), set((root / "runs").glob("dier-*"))
    failure = None
    with log.open("w", encoding="utf-8", buffering=1) as file, _tee(file), _stopping(client):
        try:
            _run(spec, arguments, root, engine.runner(root, run, mounts, network), cache)
        except (RuntimeError, ValueError, docker.errors.DockerException) as error:
            # kfp's words for a failed task, and for one that an engine calls a success but that left nothing to go on with
            failure = " ".join(re.sub(r"\x1b\[\d+m", "", str(error)).split())
    made = sorted(set((root / "runs").glob("dier-*")) - before)
    found = artifacts.gather(root / "runs", made[-1]) if made else {}
    artifacts.link(found, root / "artifacts")
    missing = [name for name in artifacts.MADE_BY if name not in found]
    # a gate leaves no artifact: that it said no stands in its exit code, which it leaves where an engine hides it
    code = permanent_failure.recall(root / "work" / engine.FAILURE)
    if failure or missing or code:
        blame = f"no whole artifact of: {', '.join(missing) or 'none'}; {failure or 'the engine reports success'}"
        raise EngineError(f"the run failed: {blame}; see {log}, mend it, and run the same command again", code or 1)
    say(f"run-local: done in {time.monotonic() - start:.0f} s; artifacts in {root / 'artifacts'}, open report/report.html there")
    return found


def _folders(root: Path) -> None:
    """Closed to everybody else; inside, open to the container's user, whoever that is to this machine."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    for name in ("runs", "work", "logs", "artifacts"):
        (root / name).mkdir(exist_ok=True)
    for of_the_last_run in (engine.TIMINGS, engine.FAILURE):
        (root / "work" / of_the_last_run).unlink(missing_ok=True)
    (root / "runs").chmod(0o777)
    (root / "work").chmod(0o777)


def _run(spec: dict[str, Any], arguments: dict[str, Any], root: Path, runner: Any, cache: bool) -> None:
    import yaml
    from kfp import components, local

    warnings.filterwarnings("ignore", message=".*have no effect in the current local runne")  # CPU, memory, retries
    before = os.umask(0)  # kfp makes a step's folders here, and the container's user writes into them
    try:
        with tempfile.TemporaryDirectory(prefix="dier-workspace-") as workspace:
            local.init(
                runner=runner,
                pipeline_root=str(root / "runs"),
                workspace_root=workspace,
                raise_on_error=True,
                enable_caching=cache,
                cache_root=str(root / "cache"),
            )
            components.load_component_from_text(yaml.safe_dump(spec))(**arguments)
    finally:
        os.umask(before)


@contextlib.contextmanager
def _stopping(client: Any) -> Iterator[None]:
    """Take the containers along when a person or the system ends this command."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        engine.stop_containers(client)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Both:
    """What is printed, on the terminal and in the log."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self._terminal, self._log = terminal, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._terminal.write(text)

    def flush(self) -> None:
        self._terminal.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


@contextlib.contextmanager
def _tee(log: TextIO) -> Iterator[None]:
    with contextlib.redirect_stdout(_Both(sys.stdout, log)), contextlib.redirect_stderr(_Both(sys.stderr, log)):
        yield
