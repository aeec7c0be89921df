"""The ResNet encoder: shapes, FiLM, a whitening that is frozen and travels with the weights, masked patches, every pool."""

import math

import numpy as np
import pytest
import torch

from model.config import POOLS, ModelConfig
from model.dier import DiER
from model.errors import ConfigError
from model.features import embed
from model.images import to_tensor
from model.stems import whitening
from model.weights import load_model, save_model
from tests.model.conftest import make_trainer, small_model
from tests.model.training.test_trainer import check_resumes

RESNET = {"encoder": "resnet", "pool": "grid"}
WHITENING = {"encoder.resnet.whitening.weight", "encoder.resnet.whitening.bias"}


@pytest.mark.parametrize(
    ("side", "maps"),
    [
        (8, [8, 4, 4, 4]),
        (16, [16, 8, 4, 4]),
        (28, [14, 7, 4, 4]),
        (32, [16, 8, 4, 4]),
        (64, [32, 16, 8, 4]),
        (224, [56, 28, 14, 7]),
    ],
)
def test_the_last_map_is_about_four_pixels_a_side_whatever_the_image(side: int, maps: list[int]) -> None:
    config = ModelConfig(12, 128, 4, side, side, 3, 4, 512, **RESNET)
    assert config.resnet_maps == [(size, size) for size in maps]
    assert config.resnet_widths == (32, 64, 128, 128)
    assert config.resnet_blocks == 3
    small = small_model(image_height=side, image_width=side, patch_size=4, **RESNET)
    with torch.no_grad():
        found = DiER(small).encoder.resnet(torch.randn(1, 1, side, side), torch.randn(1, 32))
    assert found.shape == (1, maps[-1] ** 2, 32)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_of_images_that_are_not_square(pool: str, channels: int) -> None:
    model = DiER(small_model(**RESNET | {"pool": pool}, channels=channels, image_height=12, image_width=26))
    x0, t = torch.randn(3, channels, 12, 26), torch.tensor([0, 500, 999])
    assert model.encoder(x0, t, torch.arange(8).expand(3, -1)).shape == (3, 16)
    assert model(x0, t, torch.randn_like(x0)).shape == (3,)


def test_it_begins_blind_to_t_and_every_trained_weight_has_a_gradient_within_two_steps() -> None:
    model = DiER(small_model(**RESNET))
    x0, t, noise = torch.randn(4, 1, 8, 8), torch.tensor([0, 100, 500, 900]), torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(model.encoder(x0, torch.tensor([0])), model.encoder(x0, torch.tensor([900])))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(x0, t, noise).mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) if name in WHITENING else (parameter.grad.abs().max() > 0), name
    assert not torch.allclose(model.encoder(x0, torch.tensor([0])), model.encoder(x0, torch.tensor([900])), atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"mask_ratio": 0.75}, {"checkpoint_activations": True, "precision": "bf16"}])
def test_it_is_alive_within_ten_steps(changes: dict, images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, model=RESNET, steps=10, log_every=1, **changes)
    trainer.run()
    assert min(point["grad_norm_encoder"] for point in trainer.curve) > 1e-4
    assert trainer.curve[-1]["loss"] < trainer.curve[0]["loss"]


def test_the_whitening_is_of_the_training_images_stays_and_is_saved_with_the_weights(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path / "work", model=RESNET, weight_decay=0.1)
    weight, bias = whitening(to_tensor(images))  # all 300
    trainer.run()
    assert set(trainer.model.frozen()) == WHITENING
    for found in (trainer.model.encoder.resnet.whitening, trainer.ema_model().encoder.resnet.whitening):
        torch.testing.assert_close(found.weight.flatten(1), weight, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.bias, bias, rtol=1e-4, atol=1e-4)
    save_model(tmp_path, trainer.model, trainer.ema_weights())
    loaded = load_model(tmp_path)
    assert loaded.config == trainer.model_config
    np.testing.assert_array_equal(embed(loaded, images[:20], 300), embed(trainer.ema_model(), images[:20], 300))


def test_the_untrained_model_has_the_trained_ones_whitening_and_the_first_weights(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, model=RESNET)
    first = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.run()
    found = trainer.ema_model().untrained().state_dict()
    assert all(torch.equal(found[name], first[name]) for name in first)
    plain = DiER(trainer.model_config).state_dict()
    assert {name for name in first if not torch.equal(first[name], plain[name])} == WHITENING
    vit = DiER(small_model())
    assert vit.frozen() == {}
    assert all(torch.equal(a, b) for a, b in zip(vit.untrained().state_dict().values(), vit.state_dict().values(), strict=True))


def test_a_stopped_training_goes_on_bit_for_bit(images: np.ndarray, tmp_path) -> None:
    changes = {"model": RESNET, "mask_ratio": 0.5}
    check_resumes(images, tmp_path, **changes)


def test_the_whitening_comes_from_the_checkpoint_and_not_from_the_images_again(images: np.ndarray, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, model=RESNET)
    trainer.run()
    again = make_trainer(255 - images, tmp_path, model=RESNET)
    assert not torch.equal(again.model.encoder.resnet.whitening.bias, trainer.model.encoder.resnet.whitening.bias)
    again.run()
    assert torch.equal(again.model.encoder.resnet.whitening.bias, trainer.model.encoder.resnet.whitening.bias)


def test_activation_checkpointing_gives_the_same_gradients(images: np.ndarray) -> None:
    found = []
    for checkpointed in (False, True):
        model = DiER(small_model(**RESNET))
        if checkpointed:
            model.checkpoint_activations()
            assert sum(getattr(module, "recompute", False) for module in model.modules()) == 4 + 2
        x0 = to_tensor(images[:8])
        model(x0, torch.arange(8) * 100, torch.ones_like(x0)).sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_flat_is_bounded_by_the_last_map_and_not_by_the_patches() -> None:
    config = small_model(encoder="resnet", pool="flat", image_height=32, image_width=32).check_new()  # 256 patches
    assert math.prod(config.last_map) == 16
    with pytest.raises(ConfigError, match=r"model\.pool flat with 120 tokens, more than 64.*use grid or attention$"):
        small_model(encoder="resnet", pool="flat", image_height=16, image_width=120).check_new()
