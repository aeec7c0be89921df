"""Which device the work runs on."""

import torch

from .errors import ConfigError


def pick_device(name: str) -> torch.device:
    """auto | cpu | cuda to a device; auto is cuda where there is one. Raises ConfigError for a cuda that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda', but PyTorch sees no CUDA device: use auto or cpu, or check the driver with nvidia-smi")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
