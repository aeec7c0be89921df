"""How to train, by the settings' names, and who is told while it runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .curve import Point


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Meanings and units stand with `params.yaml`'s schema."""

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    lr_decay: str
    weight_decay: float
    ema_decay: float
    grad_clip: float
    seed: int
    precision: str
    log_every: int
    checkpoint_every: int
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 2
    micro_batch: int | None = None
    compile: bool = False
    loss_weight: str = "uniform"
    views: str = "off"
    mask_ratio: float = 0.0
    condition_dropout: float = 0.0


@dataclass
class Watch:
    """Who is told what while training runs."""

    point: Callable[[Point, float], None] = lambda point, rate: None
    """Called every `log_every` steps with the curve's row and images per second."""
    step: Callable[[int], None] = lambda step: None
    """Called after every step."""
    say: Callable[[str], None] = lambda message: None
    stop: Callable[[], int] = lambda: 0
    """Asked after every step: the number of the signal that wants training to stop, 0 = go on."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up from lr / warmup_steps, then constant or a cosine to 0. `step` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_decay == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(config: TrainConfig, step: int) -> float:
    """The average's decay, smaller in the first steps so that it forgets the initial weights."""
    return min(config.ema_decay, (1 + step) / (10 + step))
