"""A step in two processes on this machine, by PyTorch's real launcher: exit codes come back, signals reach the ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.common import artifact
from pipeline.task import torchrun
from pipeline.task.torchrun import blamed
from tests.pipeline.task.test_task import executor_input, run, told, words

ROOT = Path(__file__).parents[3]
PROBE = """
import os, signal, sys, time
from pathlib import Path
rank = os.environ["RANK"]
assert os.environ["WORLD_SIZE"] == "2"
say = lambda name: Path(os.environ["MARKS"], name + rank).touch()
signal.signal(signal.SIGTERM, lambda *_: (say("term"), sys.exit(143)))
signal.signal(signal.SIGINT, lambda *_: (say("int"), sys.exit(130)))
say("up")
code = int(os.environ.get("CODE" + rank, "-1"))
if code == 99:
    os.kill(os.getpid(), signal.SIGKILL)
if code >= 0:
    sys.exit(code)
time.sleep(60)
"""
"""A stand-in for the ranks of train: marks that it was there and ends as the environment says, or waits for a signal."""


def task(folder: Path, *more: str) -> list[str]:
    given = json.dumps(executor_input(folder, "train"))
    line = ["task", "--executor-input", given, *more, "--processes", "2", "--", *words(folder, "train")]
    return [sys.executable, "-m", "pipeline.cli", *line]


@pytest.mark.slow
def test_a_failure_of_the_step_keeps_its_exit_code_and_is_permanent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure_file = tmp_path / "permanent-failure" / "run-1"
    monkeypatch.setenv("DIER_RUN_ID", "run-1")
    done = subprocess.run(
        task(tmp_path, "--permanent-failures", str(failure_file.parent)), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "dier: error: no dataset artifact" in done.stderr
    assert "of 2 ended with exit code 3" in done.stderr
    assert json.loads(failure_file.read_text()) == {"code": 3}
    start = time.monotonic()
    again = subprocess.run(
        task(tmp_path, "--permanent-failures", str(failure_file.parent)), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 3
    assert "a retry cannot cure" in again.stderr
    assert "2 processes" not in again.stderr
    assert time.monotonic() - start < 30


@pytest.mark.slow
def test_two_processes_train_one_model_and_kubeflow_is_told(tmp_path: Path) -> None:
    for step in ("prepare", "validate"):
        assert run(tmp_path, step) == 0
    done = subprocess.run(task(tmp_path), cwd=tmp_path, env=alone(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 processes, 20 steps" in done.stderr
    made = artifact.read(tmp_path / "train" / "model", "model")
    assert made.json("summary.json")["steps"] == 20
    assert told(tmp_path, "train")["model"]["fingerprint"] == made.fingerprint


def alone() -> dict[str, str]:
    """This checkout, and nobody at the tracking server's address: live logging gives up."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}


def start(tmp_path: Path, **codes: str) -> "subprocess.Popen[str]":
    """The launcher with the stand-in of ranks in the place of `pipeline.cli`."""
    package = tmp_path / "other" / "pipeline"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(PROBE)
    launch = f"""
import os, sys
from pipeline.task.torchrun import run_processes
os.environ["PYTHONPATH"] = {str(package.parent)!r}
os.chdir({str(tmp_path)!r})
sys.exit(run_processes(["train"], 2))
"""
    environment = {**os.environ, "MARKS": str(tmp_path), "PYTHONPATH": str(ROOT), **codes}
    return subprocess.Popen([sys.executable, "-c", launch], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"CODE0": "0", "CODE1": "0"}, 0),
        ({"CODE1": "4"}, 4),  # the other rank is ended
        ({"CODE0": "1"}, 1),
        ({"CODE1": "99"}, 128 + signal.SIGKILL),
    ],
)
def test_exit_codes(tmp_path: Path, codes: dict[str, str], expected: int) -> None:
    ended = start(tmp_path, **codes)
    _, err = ended.communicate(timeout=120)
    assert ended.returncode == expected, err


def test_ranks_have_less_than_a_pods_30_seconds_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that this PyTorch reads: one of another name would change nothing."""
    from torch.distributed.launcher.api import LaunchConfig

    monkeypatch.setenv(torchrun.SHUTDOWN, torchrun.SHUTDOWN_S)
    assert LaunchConfig(1, 1, 2).shutdown_timeout == 25


def test_whose_end_is_the_jobs() -> None:
    assert blamed({0: 1, 1: 3}, first=0) == (1, 3)  # bad data counts before a peer that was missed
    assert blamed({0: 5, 1: 1}, first=1) == (0, 5)  # the first rank, which alone looks at the loss, found it NaN
    assert blamed({0: 1, 1: -9}, first=1) == (1, 137)
    assert blamed({0: 1, 1: -15}, first=0) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "mark", "code"), [(signal.SIGTERM, "term", 143), (signal.SIGINT, "int", 130)])
def test_a_signal_reaches_every_rank(tmp_path: Path, sent: signal.Signals, mark: str, code: int) -> None:
    running = start(tmp_path)
    limit = time.monotonic() + 60
    while not all((tmp_path / f"up{rank}").exists() for rank in (0, 1)):
        assert time.monotonic() < limit
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(sent)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code, err
    assert all((tmp_path / f"{mark}{rank}").exists() for rank in (0, 1))
