"""A claim, with real users: one that only root can write is said at once, a Job mends it, one group goes on and no other sees it.

Users are numbers that need no account; only root can become them.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from components.common import artifact
from pipeline.errors import FolderError
from pipeline.task import file_modes, work_folder
from pipeline.task.work_folder import check_writable
from tests.pipeline.task.test_task import SHORT, executor_input, run, words

ROOT = Path(__file__).parents[3]
JOBS = [ROOT / "pipeline" / "kubeflow" / name for name in ("claim-job.yaml", "claim-job-restricted.yaml")]
GROUP = 10001
FIRST, SECOND, STRANGER = (10001, GROUP), (10002, GROUP), (10003, 10003)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_user(who: tuple[int, int], command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as this user and group, under the umask of Kubeflow's launcher."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT), *packages])}
    environment["DIER_RUN_ID"] = "run-1"
    environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"  # nobody there: live logging gives up
    environment["DIER_RUN_ID"] = "run"
    environment.pop("DIER_TIMINGS", None)  # a file of whoever runs the tests
    environment.pop(file_modes.VARIABLE, None)
    user, group = who
    return subprocess.run(
        command, user=user, group=group, extra_groups=[], umask=0, cwd=folder, env=environment, capture_output=True, text=True
    )


def interpreter() -> str:
    """A Python of this version that any user may start, and that finds what is installed here; skips where there is none."""
    number = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in (sys.executable, f"/usr/bin/{number}", f"/usr/local/bin/{number}"):
        with contextlib.suppress(OSError):
            if as_user(STRANGER, [found, "-c", "import pipeline.cli, torch"], Path("/")).returncode == 0:
                return found
    pytest.skip("no Python here can be started by another user")


def train(folder: Path, *python: str) -> list[str]:
    """The train task whose work folder lies on the claim."""
    line = words(folder, "train")
    line[line.index("--work") + 1] = str(folder / "claim" / "train")
    given = json.dumps(executor_input(folder, "train"))
    failures = str(folder / "claim" / "permanent-failure")
    task = ["task", "--executor-input", given, "--permanent-failures", failures, "--", *line]
    return [interpreter(), *python, "-m", "pipeline.cli", *task]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A dataset, a verdict, and a fresh claim, where other users can come by: pytest's own folders are closed to them."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    try:
        small = {"depth": 1, "width": 16, "heads": 2, "embed_dim": 8}
        monkeypatch.setitem(SHORT, "model", small)
        steps = {"steps": 20, "warmup_steps": 5, "log_every": 10, "batch_size": 8, "min_gap": 0, "checkpoint_every": 10}
        monkeypatch.setitem(SHORT, "train", steps)
        monkeypatch.setenv(file_modes.VARIABLE, "022")
        assert run(made, "prepare") == 0
        checked = {"dataset": artifact.read(made / "prepare" / "dataset", "dataset").fingerprint}
        with artifact.create(made / "validate" / "verdict", "verdict", checked) as verdict:
            artifact.write_json(verdict / "verdict.json", {"passed": True})  # a stand-in
        (made / "claim").mkdir(mode=0o755)
        (made / "train").mkdir()
        (made / "train").chmod(0o777)  # the launcher's own folder for outputs
        yield made
    finally:
        shutil.rmtree(made)


def mend(claim: Path) -> None:
    """What the Job's container does, on this folder."""
    [container] = yaml.safe_load(JOBS[0].read_text())["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]} | {"FOLDER": str(claim), "PATH": os.environ["PATH"]}
    subprocess.run(container["command"], env=environment, check=True, capture_output=True)


@needs_root
@pytest.mark.slow
def test_a_fresh_claim_is_refused_at_once_and_the_job_mends_it(folder: Path) -> None:
    refused = as_user(FIRST, train(folder, "-X", "importtime"), folder)
    assert refused.returncode == 1
    *imported, line = refused.stderr.splitlines()
    claim = folder / "claim"
    assert line == (
        f"dier: error: cannot write {claim}/train: Permission denied; {claim} is of user 0 and group 0, mode 0755, and this is "
        "user 10001, group 10001; give that group the right to write, on a cluster with pipeline/kubeflow/claim-job.yaml "
        "(docs/pods.md)"
    )
    packages = {text.rsplit("|")[-1].strip().split(".")[0] for text in imported}
    assert "click" in packages
    assert packages.isdisjoint({"torch", "mlflow", "pandas", "pyarrow", "sklearn"})
    assert list(claim.iterdir()) == []

    mend(claim)
    done = as_user(FIRST, train(folder), folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in claim.iterdir()) == ["train"]


@needs_root
@pytest.mark.slow
def test_another_user_of_the_group_goes_on_and_nobody_else_reads_or_writes(folder: Path) -> None:
    claim = folder / "claim"
    mend(claim)
    first = as_user(FIRST, train(folder), folder)
    assert first.returncode == 0, first.stderr
    modes = {path: path.stat().st_mode & 0o777 for path in claim.rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o770}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o660}
    assert any(path.name == "weights.safetensors" for path in modes)

    [key] = (claim / "train").iterdir()
    shutil.rmtree(key / "step-000000020")
    shutil.rmtree(folder / "train" / "model")
    second = as_user(SECOND, train(folder), folder)
    assert second.returncode == 0, second.stderr
    assert "step 10" in second.stderr
    assert (key / "step-000000020").stat().st_uid == SECOND[0]
    assert {path.stat().st_gid for path in claim.rglob("*")} == {GROUP}

    stranger = as_user(STRANGER, train(folder), folder)
    assert stranger.returncode == 1
    assert "mode 2770, and this is user 10003, group 10003" in stranger.stderr.splitlines()[-1]
    for path in [claim, *modes]:
        if path.exists():
            assert as_user(STRANGER, ["test", "-r", str(path), "-o", "-w", str(path)], folder).returncode == 1
            break  # the outermost folder is closed, so no path below it can be looked up
    assert not any(path.stat().st_mode & 0o007 for path in claim.rglob("*"))


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    check_writable(tmp_path / "work" / "train")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_said_and_a_full_disk_is_left_to_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, refused in ((30, True), (28, False)):
        error = OSError(number, os.strerror(number))

        def touch(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(Path, "touch", touch)
        if refused:
            with pytest.raises(FolderError, match="Read-only file system"):
                check_writable(tmp_path)
        else:
            check_writable(tmp_path)


def test_a_command_line_without_a_work_folder_has_none_to_check() -> None:
    work_folder.check(["prepare", "--out", "x"])
    work_folder.check(["train", "--work"])


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_the_jobs_are_kubernetes_own(file: Path, version: str) -> None:
    job = yaml.safe_load(file.read_text())
    kubernetes_validate.validate(job, version, strict=True)
    [volume] = job["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "dier-work"}


def test_an_umask_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline import cli

    monkeypatch.setenv(file_modes.VARIABLE, "rwx")
    assert cli.main(["params"]) == 2
    assert "DIER_UMASK = 'rwx' is no umask: give an octal number such as 007" in capsys.readouterr().err
