"""How v_t reaches the denoiser, and a denoiser of its own size."""

import pytest
import torch

from model.blocks import Block
from model.config import MODULATIONS
from model.dier import DiER
from model.errors import ConfigError
from model.features import denoiser_layers
from model.objective import too_narrow
from tests.model.conftest import check_gradients, make_trainer, small_model

WAYS = {
    "through 4": {"condition_dim": 4},
    "by block": {"condition": "block"},
    "by block through 4": {"condition": "block", "condition_dim": 4},
    "narrow and shallow": {"denoiser_depth": 1, "denoiser_dim": 16},
    "narrow, by block through 4": {"denoiser_depth": 3, "denoiser_dim": 16, "condition": "block", "condition_dim": 4},
}


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("way", WAYS)
def test_v_t_gets_a_gradient_at_once_and_every_weight_within_two_steps(way: str, modulation: str) -> None:
    check_gradients(DiER(small_model(modulation=modulation, modulation_rank=8, **WAYS[way])))


@pytest.mark.parametrize("way", WAYS)
def test_the_encoder_is_alive_within_ten_steps(way: str, images, tmp_path) -> None:
    trainer = make_trainer(images, tmp_path, model=WAYS[way], steps=10, log_every=1)
    trainer.run()
    assert min(point["grad_norm_encoder"] for point in trainer.curve) > 1e-4


@pytest.mark.parametrize(
    ("way", "rank"), [("through 4", 4), ("by block", 24), ("by block through 4", 4), ("narrow and shallow", 16)]
)
def test_what_is_not_in_the_conditions_does_not_reach_the_denoiser(way: str, rank: int) -> None:
    """A v_t that differs in their null space alone is the same to it, and one that differs in another direction is not."""
    model = DiER(small_model(embed_dim=24, **WAYS[way]))
    read = model.denoiser.conditions()
    assert torch.linalg.matrix_rank(read).item() == rank
    x, t, v = torch.randn(2, 1, 8, 8), torch.tensor([50, 400]), torch.randn(2, 24)
    directions = torch.linalg.svd(read).Vh
    predicted = model.denoiser(x, t, v)
    torch.testing.assert_close(predicted, model.denoiser(x, t, v + directions[rank:].sum(0)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predicted, model.denoiser(x, t, v + directions[:rank].sum(0)), atol=1e-3)


def test_by_block_modulates_once_more_what_the_condition_did() -> None:
    """Written out: v's scale (c's scale norm(x) + c's shift) + v's shift, and gates by c alone."""
    block = Block(24, 3, v_dim=5)
    block.start_with_gates(1.0, std=0.5)
    x, c, v = torch.randn(4, 9, 24), torch.randn(4, 24), torch.randn(4, 5)
    by_c, by_v = block.modulation(c)[:, None].chunk(6, dim=2), block.embedding(v)[:, None].chunk(4, dim=2)
    plain = (1 + by_v[1]) * ((1 + by_c[1]) * block.norm1(x) + by_c[0]) + by_v[0]
    middle = x + by_c[2] * block.attention(plain)
    plain = (1 + by_v[3]) * ((1 + by_c[4]) * block.norm2(middle) + by_c[3]) + by_v[2]
    torch.testing.assert_close(block(x, c, v), middle + by_c[5] * block.mlp(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [2, 16, 256])
def test_what_is_read_of_v_t_is_as_large_through_any_rank(rank: int) -> None:
    """Of a layer-normalised v_t; else a sweep of ranks would be one of sizes too."""
    v = torch.nn.functional.layer_norm(torch.randn(500, 256), (256,))
    denoiser = DiER(small_model(embed_dim=256, condition_dim=rank)).denoiser
    assert denoiser.narrow(v).std().item() == pytest.approx(1, rel=0.1)


def test_the_denoisers_heads_are_as_wide_as_the_encoders_and_its_layers_are_its_own(images) -> None:
    model = DiER(small_model(denoiser_depth=3, denoiser_dim=48))
    assert model.config.denoiser == (3, 48, 3)
    assert [layer.shape for layer in denoiser_layers(model, images[:5], 100, seed=0)] == [(5, 48)] * 3
    assert small_model().denoiser == (2, 32, 2)
    assert "a width of 16" in (too_narrow(small_model(patch_size=8, denoiser_dim=16)) or "")
    assert too_narrow(small_model(patch_size=4, denoiser_dim=16)) is None


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("condition", ["shared", "block"])
def test_what_takes_v_t_is_float32_under_autocast(condition: str, precision: str) -> None:
    model, seen = DiER(small_model(condition=condition, condition_dim=4)), []
    layers = [model.denoiser.narrow]
    layers += [model.denoiser.embedding] if condition == "shared" else [block.embedding for block in model.denoiser.blocks]
    for layer in layers:
        layer.register_forward_hook(lambda _, given, out: seen.extend([given[0].dtype, out.dtype]))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        model(torch.randn(4, 1, 8, 8), torch.arange(4), torch.randn(4, 1, 8, 8))
    assert seen == [torch.float32] * 2 * len(layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser_dim": 24}, r"model\.denoiser_width 24 must be a multiple of 4 and of the 16 numbers of an attention head"),
        ({"condition_dim": 17}, r"model\.condition_dim 17 is above the 16 numbers of v_t \(model\.embed_dim\): use fewer"),
        ({"condition": "both"}, r"unknown model\.condition 'both': use shared or block"),
        ({"modulation": "low_rank", "modulation_rank": 20, "denoiser_dim": 16}, "saves nothing at width 16: use at most 13"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_model(**changes)
