"""Between images as they are stored and tensors as the networks take them."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Images = npt.NDArray[np.uint8]
"""(N, H, W, C) uint8 in [0, 255]."""


def to_tensor(images: Images, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float32 in [-1, 1]."""
    return scaled(torch.from_numpy(np.array(images)).to(device))  # a copy: the images may be a read-only map


def scaled(pixels: Tensor) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float32 in [-1, 1], on its device."""
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def to_images(x: Tensor) -> Images:
    """(N, C, H, W), clipped to [-1, 1], to (N, H, W, C) uint8."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
