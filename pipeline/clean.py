"""`dier clean`: what runs left behind and nobody needs, listed with its size and, when asked, removed.

Checkpoints of trainings that have not ended stay, whatever their age, and so does a folder that a training holds. What a task on
Kubeflow left on its claim (inputs of TrainJobs, permanent failures) has no owner to ask, so its age decides, and that of maps
that `dier explore` keeps. Links are not followed.
"""

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.common.progress import say
from model import atomic

DAY_S = 86400.0


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may go, and why."""

    path: Path
    why: str
    training: Path | None = None
    """The work folder of the training that it belongs to, which is held while it is removed."""


def clean(*, work: Path, artifacts: Path, maps: Path, state: Path | None, keep: int, days: float, yes: bool) -> list[Leftover]:
    """List what may go, or with `yes` remove it. Below `work` lie the folders of trainings, `state` is a mounted claim of tasks.

    Of trainings that have ended the newest `keep` keep their checkpoints; `maps`, and what lies on a claim, stay for `days`.
    """
    found = [*_checkpoints(work, keep), *_temporaries(work), *_temporaries(artifacts), *_temporaries(maps)]
    found += _aged(maps.glob("*.safetensors"), "maps of dier explore, unused", days)
    if state is not None:
        found += [*_checkpoints(state / "train", keep), *_temporaries(state), *_left_by_tasks(state, days)]
    sizes = [_megabytes(one.path) for one in found]
    for one, size in zip(found, sizes, strict=True):
        say(f"{size:10.1f} MB  {one.path}  ({one.why})")
    total = sum(sizes)
    if not yes:
        say(f"{total:10.1f} MB  in all; dier clean --yes removes them" if found else "nothing to clean")
        return found
    removed = [one for one in found if _remove(one)]
    say(f"{total:10.1f} MB  {len(removed)} of {len(found)} removed")
    return removed


def _checkpoints(work: Path, keep: int) -> Iterator[Leftover]:
    from model.training.checkpoint import finished  # brings PyTorch

    ended = [folder for folder in _folders(work) if any(folder.glob("step-*")) and finished(folder)]
    for folder in sorted(ended, key=lambda folder: folder.stat().st_mtime, reverse=True)[keep:]:
        for checkpoint in sorted(folder.glob("step-*")):
            yield Leftover(checkpoint, "checkpoint of a training that has ended", folder)


def _temporaries(folder: Path) -> Iterator[Leftover]:
    for place in (folder, *_folders(folder)):
        for path in atomic.leftovers(place):
            yield Leftover(path, "half written, by a process that was killed")


def _left_by_tasks(state: Path, days: float) -> Iterator[Leftover]:
    for name, why in (("trainjob", "inputs of a TrainJob"), ("permanent-failure", "how a run ended")):
        yield from _aged((state / name).glob("*"), f"{why}, unchanged", days)


def _aged(paths: Iterable[Path], why: str, days: float) -> Iterator[Leftover]:
    for path in sorted(paths):
        if not path.is_symlink() and time.time() - atomic.changed_at(path) >= days * DAY_S:
            yield Leftover(path, f"{why} for {days:g} days")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())


def _remove(one: Leftover) -> bool:
    from model.errors import CheckpointError
    from model.training.checkpoint import hold

    try:
        with hold(one.training) if one.training else contextlib.nullcontext():
            if one.path.is_dir():
                shutil.rmtree(one.path)
            else:
                one.path.unlink()
    except (OSError, CheckpointError) as error:
        say(f"kept {one.path}: {error}")
        return False
    return True


def _megabytes(path: Path) -> float:
    return sum(part.lstat().st_size for part in (path, *path.rglob("*"))) / 1e6
