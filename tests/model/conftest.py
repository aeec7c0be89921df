from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from model.config import ModelConfig
from model.dier import DiER
from model.training.callback import Callback
from model.training.options import TrainConfig
from model.training.trainer import Trainer


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Real images: 300 of scikit-learn's digits, (N, 8, 8, 1) uint8."""
    return (load_digits().images[:300] * 255 / 16).round().astype(np.uint8)[..., None]


def small_model(**changes: object) -> ModelConfig:
    shape = {"depth": 2, "dim": 32, "heads": 2, "image_height": 8, "image_width": 8, "channels": 1}
    return ModelConfig(**(shape | {"patch_size": 2, "embed_dim": 16, "pool": "mean"} | changes))


def train_config(**changes: object) -> TrainConfig:
    values = {"steps": 12, "batch_size": 16, "lr": 1e-3, "warmup_steps": 2, "lr_decay": "constant", "weight_decay": 0.0}
    values |= {"ema_decay": 0.99, "grad_clip": 1.0, "seed": 0, "precision": "float32", "log_every": 4, "checkpoint_every": 4}
    return TrainConfig(**(values | changes))


def check_gradients(model: DiER) -> None:
    """v_t has a gradient from the first step on, and every weight of a model of 8x8 grey images within two."""
    x0, t, noise = torch.randn(4, 1, 8, 8), torch.tensor([0, 100, 500, 900]), torch.randn(4, 1, 8, 8)
    v = model.encoder(x0, t).detach().requires_grad_()
    model.denoising_loss(x0, t, noise, v).mean().backward()
    assert v.grad is not None
    assert v.grad.norm(dim=1).min() > 1e-5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the encoder's modulations start at zero, so what is behind them has a gradient from the second step on
        optimizer.zero_grad()
        model(x0, t, noise).mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


class Hooks(Callback):
    """A callback made of functions."""

    def __init__(
        self,
        step: Callable[[Trainer], object] | None = None,
        point: Callable[[Trainer, dict, float], object] | None = None,
        message: Callable[[str], object] | None = None,
        stop: Callable[[], int] | None = None,
    ) -> None:
        for name, hook in {"on_step": step, "on_point": point, "on_message": message, "stop_requested": stop}.items():
            if hook is not None:
                setattr(self, name, hook)


def make_trainer(
    images: np.ndarray,
    work: Path,
    *callbacks: Callback,
    model: dict | None = None,
    configuration: dict | None = None,
    compiled: bool = False,
    shards: Sequence[slice] | None = None,
    **changes: object,
) -> Trainer:
    config, cpu = small_model(**(model or {})), torch.device("cpu")
    options = {"compiled": compiled, "shards": shards}
    return Trainer(config, train_config(**changes), images, work, cpu, list(callbacks), configuration or {}, **options)
