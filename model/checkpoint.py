"""Weights on disk: the exported model, and the running checkpoints that a stopped training goes on from.

Everything is safetensors and JSON; nothing is pickled.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import ModelConfig
from .dier import DiER
from .errors import ConfigError

KEEP = 2
"""Running checkpoints kept: the newest, and one to fall back to."""


def save_model(folder: Path, model: DiER, weights: dict[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` (the given weights, EMA ones say) into an existing folder."""
    model.config.save(folder / "config.json")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")


def load_model(folder: Path) -> DiER:
    """Read a model onto the CPU, in evaluation mode. Raises ConfigError where the files do not fit together."""
    model = DiER(ModelConfig.load(folder / "config.json"))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(f"cannot load {folder / 'model.safetensors'}: {error}; train the model again") from error
    return model.eval()


@dataclass(frozen=True)
class Running:
    """A running checkpoint: tensors by name, and what else the trainer needs (step, curve)."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_running(folder: Path, running: Running) -> None:
    """Write one checkpoint atomically (beside, fsync, rename), then drop all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{running.step:09d}.safetensors"
    beside = final.with_suffix(".partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in running.tensors.items()}
    save_file(tensors, beside, {"step": str(running.step), "facts": json.dumps(running.facts)})
    for path in (beside, folder):
        _fsync(path)
    beside.rename(final)
    _fsync(folder)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()


def load_running(folder: Path) -> tuple[Running | None, list[str]]:
    """The newest checkpoint in `folder` that can be read, or None; and the names of those that could not."""
    damaged: list[str] = []
    for file in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            with safe_open(file, "pt") as opened:
                facts = opened.metadata()
            return Running(int(facts["step"]), load_file(file), json.loads(facts["facts"])), damaged
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            damaged.append(file.name)
    return None, damaged


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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
