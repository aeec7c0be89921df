from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from model.config import ModelConfig
from model.training.options import TrainConfig, Watch
from model.training.trainer import Trainer


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Real images: 300 of scikit-learn's digits, (N, 8, 8, 1) uint8."""
    return (load_digits().images[:300] * 255 / 16).round().astype(np.uint8)[..., None]


def small_model(**changes: object) -> ModelConfig:
    shape = {"depth": 2, "dim": 32, "heads": 2, "height": 8, "width": 8, "channels": 1}
    return ModelConfig(**(shape | {"patch_size": 2, "embed_dim": 16, "pool": "mean"} | changes))


def train_config(**changes: object) -> TrainConfig:
    values = {"steps": 12, "batch_size": 16, "lr": 1e-3, "warmup_steps": 2, "lr_decay": "constant", "weight_decay": 0.0}
    values |= {"ema_decay": 0.99, "grad_clip": 1.0, "seed": 0, "precision": "float32", "log_every": 4, "checkpoint_every": 4}
    return TrainConfig(**(values | changes))


def make_trainer(
    images: np.ndarray,
    work: Path,
    watch: Watch | None = None,
    model: dict | None = None,
    facts: dict | None = None,
    **changes: object,
) -> Trainer:
    config = small_model(**(model or {}))
    return Trainer(config, train_config(**changes), images, work, torch.device("cpu"), watch or Watch(), facts or {})
