"""Running checkpoints: what a stopped or killed training goes on from, whatever moment it died at.

A checkpoint is a folder `step-000000500` with `weights`, `ema` and `optimizer` in safetensors, `state.json` (the curve),
`facts.json` (what it is a training of) and `manifest.json`, written last. It is written beside, fsynced and renamed, so it is whole
or absent, and it is checked when it is read. Nothing is unpickled: the optimizer's state is tensors and is kept as such.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..atomic import damage, fsync, make_folder, refused, seal, write_json
from ..errors import CheckpointError
from .run_configuration import Facts, differences, most_alike

PARTS = ("weights", "ema", "optimizer")
BEST = "best"
"""A part that is there only where the best average so far is kept beside the newest."""
PHASES = ("start", *PARTS, "state", "manifest", "rename", "prune")
"""What saving goes through, in this order."""


def phase(name: str) -> None:
    """Called as each of PHASES is over; does nothing. Tests put in its place what kills the process there, or fills the disk."""


@dataclass(frozen=True)
class Running:
    """A running checkpoint."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """By part (PARTS, and perhaps BEST), then by name."""
    state: Mapping[str, Any]
    """The rest of what the trainer needs, as JSON."""
    facts: Facts = field(default_factory=dict)
    """What the weights depend on, by name: fingerprint of the data, settings, digests of the code."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep any other training out of `folder`, which is made if need be; the system lets go however this process ends.

    Raises CheckpointError where another has it, or where it cannot be written.
    """
    try:
        make_folder(folder)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise refused(error, "checkpoints", folder) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"another training is using {folder}: wait for it or stop it, then run again") from None
        except OSError:
            pass  # a file system without locks
        _remove(folder.glob(".step-*"))  # what a killed save left
        yield


def save(folder: Path, running: Running, keep: int) -> None:
    """Write one checkpoint, then drop all but the newest `keep`. Raises CheckpointError where the disk refuses; older ones stay."""
    final = folder / f"step-{running.step:09d}"
    beside = folder / f".{final.name}.partial"
    try:
        phase("start")
        beside.mkdir()
        _write(beside, running)
        if final.exists():  # a damaged one, or training would not have come by here again
            _set_aside(final)
        beside.rename(final)
        fsync(folder)
        phase("rename")
        for damaged in folder.glob("step-*"):
            if damaged.name > final.name:  # training went on from before it
                _set_aside(damaged)
        _prune(folder, final, keep)
        phase("prune")
    except (OSError, SafetensorError) as error:
        _remove([beside])
        needed = sum(tensor.nbytes for part in running.tensors.values() for tensor in part.values())
        raise refused(error, f"the checkpoint of step {running.step}", folder, needed) from error


def _write(beside: Path, running: Running) -> None:
    for part in [BEST] * (BEST in running.tensors) + list(PARTS):
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in running.tensors[part].items()}
        save_file(tensors, beside / f"{part}.safetensors")
        fsync(beside / f"{part}.safetensors")
        if part in PARTS:
            phase(part)
    write_json(beside / "state.json", {"step": running.step} | dict(running.state))
    write_json(beside / "facts.json", dict(running.facts))
    phase("state")
    seal(beside)
    phase("manifest")


def newest(folder: Path, facts: Facts, keep: int, say: Callable[[str], None]) -> Running | None:
    """The newest whole checkpoint, or None where there is none at all; `say` is told of damaged ones that were passed over.

    Of it and those before it `keep` stay: a kill may have come between saving and dropping. Raises CheckpointError where all are
    damaged (days of work are dropped by a person, not by default), or where it was made of other facts than these.
    """
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            running = _read(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append(f"{path.name} ({' '.join(str(error).split())})")
            continue
        different = differences(running.facts, facts)
        if different:
            raise CheckpointError(
                f"the checkpoint {path} is of another training: {different}; undo that, "
                f"or remove {folder} to start from the beginning"
            )
        if damaged:
            say(f"train: damaged: the checkpoint {', '.join(damaged)} in {folder}; using {path.name} instead")
        with contextlib.suppress(OSError):
            _prune(folder, path, keep)
        return running
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged: {', '.join(damaged)}; bring back a whole one, or remove that folder to "
            "start from the beginning"
        )
    alike = most_alike(folder, facts)
    if alike:
        say(f"train: starting at step 0: {alike}")
    return None


def _read(path: Path) -> Running:
    wrong = damage(path)
    if wrong:
        raise ValueError(wrong)
    state = json.loads((path / "state.json").read_bytes())
    if path.name != f"step-{state['step']:09d}":
        raise ValueError(f"it is of step {state['step']}")
    parts = [*PARTS, BEST] if (path / f"{BEST}.safetensors").is_file() else PARTS  # one that was removed is missed by the manifest
    tensors = {part: load_file(path / f"{part}.safetensors") for part in parts}
    return Running(state.pop("step"), tensors, state, json.loads((path / "facts.json").read_bytes()))


def _prune(folder: Path, newest: Path, keep: int) -> None:
    for old in sorted(path for path in folder.glob("step-*") if path.name <= newest.name)[:-keep]:
        _set_aside(old)


def _set_aside(path: Path) -> None:
    """Remove a checkpoint by renaming it first, so that a kill half-way leaves no damaged one."""
    aside = path.with_name(f".{path.name}.old")
    _remove([aside])
    path.rename(aside)
    _remove([aside])


def _remove(folders: Iterable[Path]) -> None:
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)
