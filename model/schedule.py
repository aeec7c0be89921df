"""The noise schedule: linear betas from 1e-4 to 0.02 over T = 1000 steps (DDPM, arXiv 2006.11239, section 4)."""

import math

import torch
from torch import Tensor

from .config import NUM_TIMESTEPS


def alpha_bar() -> Tensor:
    """(T,) float64: the share of signal power left at each t, the product of 1 - beta up to t."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, NUM_TIMESTEPS, dtype=torch.float64), 0)


def log_snr(t: int) -> float:
    """Natural log of signal power over noise power at t: about 9.2 at t = 0, -10.1 at t = 999."""
    signal = alpha_bar()[t].item()
    return math.log(signal / (1 - signal))


def add_noise(x0: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """x_t = sqrt(a) x0 + sqrt(1 - a) eps, DDPM equation 4. x0, noise (N, C, H, W); signal a (N,) in 0 .. 1."""
    a = signal.view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def remove_noise(x_t: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """The estimate of x0 that an estimate of the noise implies; the inverse of `add_noise`. Same shapes."""
    a = signal.view(-1, 1, 1, 1)
    return (x_t - (1 - a).sqrt() * noise) / a.sqrt()
