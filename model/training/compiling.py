"""Whether torch.compile is used."""

import os
import shutil
import sysconfig
from pathlib import Path

import torch

from ..config import ModelConfig
from ..errors import ConfigError

LEAST_WORK = 1e14
"""Floating-point operations on a CPU from which compiling repays itself twice: some 12 minutes of two cores."""

COST = {"cpu": "a step takes 1 to 5 % longer", "cuda": "Triton needs one; what that costs was not measured"}
"""What the absence of a compiler costs, as measured."""


def training_work(config: ModelConfig, images: int) -> float:
    """Floating-point operations of training on so many images: both networks forward, and twice that backward."""
    depth, dim, _ = config.denoiser
    return 3 * (encoding_work(config, images) + 24.0 * dim**2 * depth * config.tokens * images)


def encoding_work(config: ModelConfig, images: int) -> float:
    """Floating-point operations of the encoder's blocks on so many images: 24 D^2 a token and block. A ResNet has none."""
    if config.encoder == "resnet":
        return 0.0
    return 24.0 * config.dim**2 * config.depth * config.tokens * images


def choose_compile(wanted: str, device: torch.device, work: float, section: str = "train") -> tuple[bool, str]:
    """auto | on | off to a decision and its reason. Raises ConfigError for an `on` without a compiler.

    `wanted` is the setting `compile` of the section, `work` what is to be done in floating-point operations.
    """
    if wanted == "off":
        return False, f"{section}.compile is off"
    missing = _missing(device)
    if missing:
        if wanted == "on":
            raise ConfigError(f"{section}.compile = 'on', but {missing}: install it, or use auto or off")
        return False, f"{missing}, so nothing is compiled: {COST[device.type]} (docs/performance.md)"
    if wanted == "auto" and device.type == "cpu" and work < LEAST_WORK:
        return False, "a run this short does not repay compiling"
    return True, "the blocks are compiled, which delays the first step"


def _missing(device: torch.device) -> str | None:
    """What torch.compile needs and does not find: it writes C++ for a CPU, C for CUDA's Triton, and both use Python's headers."""
    names = [os.environ.get("CXX", "g++")] if device.type == "cpu" else [os.environ.get("CC", "gcc"), "clang"]
    if not any(shutil.which(name) for name in names):
        return f"no compiler ({' or '.join(names)}) is installed"
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if headers.is_file() else f"Python's headers ({headers}) are not installed"
