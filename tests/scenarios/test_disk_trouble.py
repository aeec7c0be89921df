"""A disk that fills up at each phase of saving, a limit on file sizes, a read-only folder.

Each ends in one line, what was saved stays, and the training goes on when the trouble is over.
"""

import contextlib
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from components import prepare
from components.common import artifact
from components.common.settings import DataSettings
from model.errors import CheckpointError
from model.training import checkpoint
from model.training.checkpoint import PHASES
from pipeline.cli import main
from tests.model.conftest import Hooks, images, make_trainer  # noqa: F401
from tests.scenarios.conftest import ROOT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own: five of the checkpoints here."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Leave so many bytes of room."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - leave))


def checkpoints(work: Path) -> dict[str, bytes]:
    return {str(path.relative_to(work)): path.read_bytes() for path in sorted(work.glob("step-*/*"))}


@pytest.mark.parametrize("at", PHASES)
def test_a_disk_that_fills_up_while_saving(
    small_disk: Path,
    tmp_path: Path,
    images: np.ndarray,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    make_trainer(images, tmp_path / "whole").run()
    work = small_disk / "work"
    saves, before = 0, {}

    def phase(name: str) -> None:
        nonlocal saves
        saves += name == "start"
        if saves == 2 and name == "start":
            before.update(checkpoints(work))
        if saves == 2 and name == at:
            fill(small_disk)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "phase", phase)
        with pytest.raises(CheckpointError) as caught:
            make_trainer(images, work).run()
    line = str(caught.value)
    assert "\n" not in line
    assert str(work) in line
    assert "No space left on device (it needs " in line
    assert "MB are free); make room there" in line
    # with the manifest written a checkpoint needs no more room: then the next one, or the file of rates, is refused
    assert ("the checkpoint of step 8" in line) == (at in PHASES[: PHASES.index("manifest")])
    now = checkpoints(work)
    assert before.items() <= now.items()
    assert not list(work.glob(".step-*"))

    (small_disk / "filler").unlink()
    make_trainer(images, work).run()
    assert checkpoints(work) == checkpoints(tmp_path / "whole")


def test_a_limit_on_file_sizes(tmp_path: Path, images: np.ndarray) -> None:  # noqa: F811
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write the checkpoint of step 4 in .*: File too large; check"):
            make_trainer(images, tmp_path).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "rates.csv"]
    make_trainer(images, tmp_path).run()


def test_a_folder_that_becomes_read_only(small_disk: Path, tmp_path: Path, images: np.ndarray) -> None:  # noqa: F811
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", small_disk], check=True)

    make_trainer(images, tmp_path / "whole", log_every=5).run()
    work = small_disk / "work"
    trainer = make_trainer(images, work, Hooks(lambda trainer: remount("ro") if trainer.step == 7 else None), log_every=5)
    # the lock is a file open for writing, under which a file system is not made read-only: this training does without
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.trainer.hold", unlocked)
        with pytest.raises(CheckpointError, match=r"cannot write the checkpoint of step 8 in .*: Read-only file system; check"):
            trainer.run()
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints in .*: Read-only file system; check"):
        make_trainer(images, work, log_every=5).run()  # told at once, not at the first checkpoint
    remount("rw")
    make_trainer(images, work, log_every=5).run()
    assert checkpoints(work) == checkpoints(tmp_path / "whole")


def unlocked(folder: Path) -> contextlib.nullcontext[None]:
    """A stand-in for `hold` that makes the folder only."""
    folder.mkdir()
    return contextlib.nullcontext()


@pytest.fixture
def command(tmp_path: Path, store: str) -> Callable[[Path], list[str]]:
    """The words of a short `dier train` with a given work folder."""
    prepare.run(data_settings=DataSettings(limit=200), out=tmp_path / "dataset")
    fingerprint = artifact.read(tmp_path / "dataset", "dataset").fingerprint
    with artifact.create(tmp_path / "verdict", "verdict", {"dataset": fingerprint}) as made:
        artifact.write_json(made / "verdict.json", {"passed": True, "warnings": 0})  # a stand-in
    settings = {"model.width": 32, "model.heads": 2, "model.embed_dim": 16, "train.steps": 12, "train.warmup_steps": 2}
    settings |= {"train.batch_size": 16, "train.log_every": 3, "train.checkpoint_every": 4, "train.min_gap": 0}
    words = ["train", "--params", str(ROOT / "params.yaml"), "--dataset", str(tmp_path / "dataset")]
    words += ["--verdict", str(tmp_path / "verdict"), "--out", str(tmp_path / "model")]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return lambda work: [*words, "--work", str(work)]


@pytest.mark.slow
def test_the_command_ends_with_one_line_and_goes_on_after_room_is_made(
    small_disk: Path, command: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(small_disk, leave=500_000)
    assert main(command(small_disk)) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dier: error: cannot write the checkpoint of step 4 in ")
    assert re.search(r"No space left on device \(it needs \d\.\d\d MB, 0\.\d\d MB are free\)", line)
    assert not (tmp_path / "model").exists()
    (small_disk / "filler").unlink()
    assert main(command(small_disk)) == 0
    assert artifact.read(tmp_path / "model", "model").json("summary.json")["steps"] == 12
