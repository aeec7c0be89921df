"""The noise schedule: alpha_bar, the share of an image's power that is left at each of the NUM_TIMESTEPS = 1000 timesteps.

`linear`: betas from 1e-4 to 0.02 (DDPM, arXiv 2006.11239, section 4). `cosine`: alpha_bar falls along a squared
cosine, so that fewer timesteps are almost nothing but noise (Improved DDPM, arXiv 2102.09672, equation 17).
"""

import math

import torch
from torch import Tensor

from .config import NUM_TIMESTEPS

OFFSET = 0.008
"""s of the cosine schedule: keeps the first betas from being too small."""
LARGEST_BETA = 0.999
"""No step of the cosine schedule takes all that is left."""


def alpha_bars(schedule: str = "linear") -> Tensor:
    """alpha_bar of every timestep, (NUM_TIMESTEPS,) float64 in (0, 1): the product of 1 - beta up to t."""
    if schedule == "cosine":
        places = torch.arange(NUM_TIMESTEPS + 1, dtype=torch.float64) / NUM_TIMESTEPS
        wanted = torch.cos((places + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2  # (NUM_TIMESTEPS + 1,)
        betas = (1 - wanted[1:] / wanted[:-1]).clamp(max=LARGEST_BETA)
    else:
        betas = torch.linspace(1e-4, 0.02, NUM_TIMESTEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, 0)


def log_snr(t: int, schedule: str = "linear") -> float:
    """Natural log of signal power over noise power at t: linear 9.2 at t = 0 and -10.1 at t = 999, cosine 10.1 and -19.8."""
    alpha_bar = alpha_bars(schedule)[t].item()
    return math.log(alpha_bar / (1 - alpha_bar))


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps, DDPM equation 4.

    x0 (N, C, H, W) in [-1, 1], noise (N, C, H, W) standard normal, alpha_bar (N,) in (0, 1); gives (N, C, H, W).
    """
    a = alpha_bar.view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def remove_noise(x_t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The estimate of x0 that an estimate of the noise implies; the inverse of `add_noise`, not clipped to [-1, 1]. Same shapes."""
    a = alpha_bar.view(-1, 1, 1, 1)
    return (x_t - (1 - a).sqrt() * noise) / a.sqrt()
