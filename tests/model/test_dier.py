import numpy as np
import pytest
import torch

from model.config import POOLS, ModelConfig
from model.dier import DiER
from model.errors import ConfigError
from model.images import to_images, to_tensor
from model.schedule import add_noise
from tests.model.conftest import make_trainer, small_model


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(pool: str, channels: int) -> None:
    model = DiER(small_model(pool=pool, channels=channels, image_height=12))
    x0, t = torch.randn(5, channels, 12, 8), torch.tensor([0, 1, 500, 998, 999])
    v = model.encoder(x0, t)
    assert v.shape == (5, 16)
    assert model.denoiser(x0, t, v).shape == x0.shape
    assert model(x0, t, torch.randn_like(x0)).shape == (5,)


def test_the_loss_is_the_mean_squared_error_of_the_noise() -> None:
    model = DiER(small_model())
    x0, noise, t = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.tensor([3, 200, 600, 990])
    predicted = model.denoiser(add_noise(x0, noise, model.alpha_bar[t]), t, model.encoder(x0, t))
    torch.testing.assert_close(model(x0, t, noise), ((noise - predicted) ** 2).mean(dim=(1, 2, 3)))


def test_initial_weights_are_a_function_of_the_configuration() -> None:
    first = DiER(small_model(init_seed=3)).state_dict()
    torch.manual_seed(99)
    again, other = DiER(small_model(init_seed=3)).state_dict(), DiER(small_model(init_seed=4)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.head.weight"], other["encoder.head.weight"])


def test_building_a_model_leaves_every_global_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("CUDA's generators are reseeded"))
    DiER(small_model(init_seed=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_normalised_embedding_has_mean_zero_and_variance_one() -> None:
    v = DiER(small_model(embed_norm=True)).encoder(torch.randn(6, 1, 8, 8), torch.arange(6))
    torch.testing.assert_close(v.mean(1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(v.var(1, unbiased=False), torch.ones(6), rtol=1e-2, atol=0)


def test_the_ablated_encoder_does_not_see_t_and_the_trained_one_does(images: np.ndarray, tmp_path) -> None:
    x = to_tensor(images[:8])
    for encoder_time in (True, False):
        trainer = make_trainer(images, tmp_path / str(encoder_time), model={"encoder_time": encoder_time}, steps=20)
        trainer.run()
        low, high = (trainer.model.encoder(x, torch.full((8,), t)) for t in (0, 900))
        assert torch.allclose(low, high) is not encoder_time


def test_the_encoder_is_alive_within_ten_steps(images: np.ndarray, tmp_path) -> None:
    """DiT's zero initialisation gives it a gradient of exactly zero at first; ours must not."""
    trainer = make_trainer(images, tmp_path, steps=10, log_every=1)
    trainer.run()
    norms = [point["grad_norm_encoder"] for point in trainer.curve]
    assert min(norms) > 1e-4


def test_dit_initialisation_would_start_with_a_dead_encoder() -> None:
    model = DiER(small_model())
    for block in model.denoiser.blocks:
        block.start_with_gates(0.0, std=0.0)
    torch.nn.init.zeros_(model.denoiser.modulation.weight)
    torch.nn.init.zeros_(model.denoiser.out.weight)
    model(torch.randn(4, 1, 8, 8), torch.arange(4), torch.randn(4, 1, 8, 8)).mean().backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.encoder.parameters())


@pytest.mark.parametrize("changes", [{"patch_size": 3}, {"heads": 5}, {"pool": "max"}, {"image_height": 9}])
def test_pieces_that_do_not_fit_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError):
        small_model(**changes)


def test_configuration_survives_the_disk(tmp_path) -> None:
    config = small_model(pool="flat", init_seed=7)
    config.save(tmp_path / "config.json")
    assert ModelConfig.load(tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read"):
        ModelConfig.load(tmp_path / "config.json")


def test_pixels_survive_the_way_there_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = to_tensor(images)
    assert (x.min().item(), x.max().item()) == (-1, 1)
    np.testing.assert_array_equal(to_images(x), images)
