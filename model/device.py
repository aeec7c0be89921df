"""Which device the work runs on, and how the process holds its memory."""

import ctypes
import platform

import torch

from .errors import ConfigError


def pick_device(name: str) -> torch.device:
    """auto | cpu | cuda to a device; auto is cuda where there is one. Raises ConfigError for a cuda that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda', but PyTorch sees no CUDA device: use auto or cpu, or check the driver with nvidia-smi")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next step to use.

    glibc hands large pieces back to the system at once; taking them again costs a page fault each 4 KiB, up to a tenth of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no piece gets a mapping of its own
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the top of the heap stays
