"""Running checkpoints: what a stopped or killed training goes on from, whatever moment it died at.

A checkpoint is a folder `step-000000500` with `weights`, `ema` and `optimizer` in safetensors, `state.json` (the curve),
`run_configuration.json` (what it is a training of) and `manifest.json`, written last. It is written beside, fsynced and renamed, so
it is whole or absent, and it is checked when it is read. Nothing is unpickled: the optimizer's state is kept as tensors.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..atomic import canonical_json, check_files, leftovers, make_folder, put_in_place, read_manifest, seal
from ..errors import CheckpointError
from .run_configuration import FILE, RunConfiguration, differences, most_alike

PARTS = ("weights", "ema", "optimizer")
BEST = "best"
"""A part that is there only where the best average so far is kept beside the newest."""
PHASES = ("start", *PARTS, "state", "manifest", "rename", "prune")
"""What saving goes through, in this order."""


def phase(name: str) -> None:
    """Called as each of PHASES is over; does nothing. Tests put in its place what kills the process there, or fills the disk."""


@dataclass(frozen=True)
class RunningCheckpoint:
    """A running checkpoint."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """By part (PARTS, and perhaps BEST), then by name."""
    state: Mapping[str, Any]
    """The rest of what the trainer needs, as JSON."""
    run_configuration: RunConfiguration = field(default_factory=dict)
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
        _remove([*folder.glob(".step-*"), *leftovers(folder, idle_s=0)])  # what a killed training left
        yield


def save(folder: Path, running: RunningCheckpoint, keep: int) -> None:
    """Write one checkpoint, then drop all but the newest `keep`. Raises CheckpointError where the disk refuses; older ones stay."""
    final = folder / f"step-{running.step:09d}"
    beside = folder / f".{final.name}.partial"
    try:
        phase("start")
        beside.mkdir()
        _write(beside, running)
        put_in_place(beside, final)  # in place of a damaged one, or training would not have come by here again
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


def _write(beside: Path, running: RunningCheckpoint) -> None:
    for part in [BEST] * (BEST in running.tensors) + list(PARTS):
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in running.tensors[part].items()}
        save_file(tensors, beside / f"{part}.safetensors")
        if part in PARTS:
            phase(part)
    state = {"step": running.step} | dict(running.state)  # not sorted: the curve's columns keep their order
    (beside / "state.json").write_text(json.dumps(state, indent=1) + "\n", "utf-8")
    (beside / FILE).write_text(canonical_json(dict(running.run_configuration)), "utf-8")
    phase("state")
    seal(beside)
    phase("manifest")


def newest(folder: Path, configuration: RunConfiguration, keep: int, say: Callable[[str], None]) -> RunningCheckpoint | None:
    """The newest whole checkpoint, or None where there is none at all; `say` is told of damaged ones that were passed over.

    Of it and those before it `keep` stay: a kill may have come between saving and dropping. Raises CheckpointError where all are
    damaged (days of work are dropped by a person, not by default), or where it is of another run configuration.
    """
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            running = _read(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append(f"{path.name} ({' '.join(str(error).split())})")
            continue
        different = differences(running.run_configuration, configuration)
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
    alike = most_alike(folder, configuration)
    if alike:
        say(f"train: starting at step 0: {alike}")
    return None


def _read(path: Path) -> RunningCheckpoint:
    state = _checked_state(path)
    if path.name != f"step-{state['step']:09d}":
        raise ValueError(f"it is of step {state['step']}")
    parts = [*PARTS, BEST] if (path / f"{BEST}.safetensors").is_file() else PARTS  # one that was removed is missed by the manifest
    tensors = {part: load_file(path / f"{part}.safetensors") for part in parts}
    return RunningCheckpoint(state.pop("step"), tensors, state, json.loads((path / FILE).read_bytes()))


def _checked_state(path: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint, every file of which is what its manifest says. Raises ValueError or OSError otherwise."""
    check_files(path, read_manifest(path))
    state: dict[str, Any] = json.loads((path / "state.json").read_bytes())
    return state


def finished(folder: Path) -> bool:
    """Whether the training whose checkpoints are in `folder` reached its last step: its newest checkpoint is of that, and whole.

    Hold the folder (`hold`) before anything is removed from it: a finished training may just be exported.
    """
    try:
        state = _checked_state(max(folder.glob("step-*")))
        return bool(state["step"] >= state["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _prune(folder: Path, newest: Path, keep: int) -> None:
    for old in sorted(path for path in folder.glob("step-*") if path.name <= newest.name)[:-keep]:
        _set_aside(old)


def _set_aside(path: Path) -> None:
    """Remove a checkpoint by renaming it first, so that a kill half-way leaves no damaged one."""
    aside = path.with_name(f".{path.name}.old")
    _remove([aside])
    path.rename(aside)
    _remove([aside])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # gone already, or a disk that refuses: whoever asks has better words for that
                path.unlink()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state, flat: `{parameter number}.{name}`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; the hyper-parameters stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def refused(error: Exception, what: str, folder: Path, needed: int = 0) -> CheckpointError:
    """The disk said no: what could not be written, where, how much room it needs (bytes) and has, and what to do."""
    reason, number = _reason(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            reason += f" (it needs {needed / 1e6:.2f} MB, {shutil.disk_usage(folder).free / 1e6:.2f} MB are free)"
        reason += "; make room there"
    else:
        reason += "; check that folder, its permissions and limits"
    return CheckpointError(
        f"cannot write {what} in {folder}: {reason}, then run the same command again: it goes on from the last whole checkpoint"
    )


def _reason(error: Exception) -> tuple[str, int]:
    """The system's words and number, which safetensors hands on in its text only."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno), error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (os.strerror(int(found[1])), int(found[1])) if found else (" ".join(str(error).split()), 0)
