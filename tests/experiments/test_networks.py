"""The contest's encoders: the ones that DiER begins with."""

from pathlib import Path

import numpy as np
import torch

from experiments.networks import encoder_features, make_encoder, model_config
from model.training.options import TrainConfig
from model.training.trainer import Trainer

RESNET = {"encoder": "resnet", "pool": "grid", "dim": 16, "heads": 2, "embed_dim": 8}


def test_a_resnet_has_the_whitening_that_dier_would_have_of_these_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (700, 8, 8, 3), np.uint8)
    encoder = make_encoder(images, RESNET, 0)
    trained = Trainer(model_config(images, RESNET, 0), TrainConfig(warmup_steps=0), images, tmp_path, torch.device("cpu"))
    for name, weight in trained.model.encoder.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name]), name
    read = encoder_features(encoder)
    assert {name: features(images[:5]).shape for name, features in read.items()} == {"v": (5, 8), "tokens": (5, 64)}
