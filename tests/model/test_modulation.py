"""Where a block takes its shifts, scales and gates from: counts, initial weights, an encoder that learns from the first step."""

import pytest
import torch
from torch import nn

from model.blocks import Block
from model.config import MODULATIONS, SIZES, ModelConfig
from model.dier import DiER
from model.errors import ConfigError
from model.memory import parameters
from model.rng import generator
from tests.model.conftest import check_gradients, make_trainer, small_model


def model_of(modulation: str, **changes: object) -> DiER:
    return DiER(small_model(modulation=modulation, modulation_rank=8, **changes))


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_v_t_gets_a_gradient_at_once_and_every_weight_within_two_steps(modulation: str) -> None:
    check_gradients(model_of(modulation))


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_the_encoder_is_alive_within_ten_steps(modulation: str, images, tmp_path) -> None:
    model = {"modulation": modulation, "modulation_rank": 8}
    trainer = make_trainer(images, tmp_path, model=model, steps=10, log_every=1)
    trainer.run()
    assert min(point["grad_norm_encoder"] for point in trainer.curve) > 1e-4


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_all_start_as_plain_vit_blocks_whatever_t_is(modulation: str) -> None:
    """The untrained encoder does not see t; with gates at 0 a block is the identity."""
    encoder, x0 = model_of(modulation).encoder, torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(encoder(x0, torch.tensor([0])), encoder(x0, torch.tensor([900])))
    block = Block(32, 2, modulation, 8)
    block.start_with_gates(0.0, std=0.0)
    x, c = torch.randn(4, 9, 32), torch.zeros(4, 192 if modulation == "single" else 32)
    torch.testing.assert_close(block(x, c), x)


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_the_denoisers_modulations_have_one_spread_around_what_a_vit_block_has(modulation: str) -> None:
    """The same 0.02 an entry, with low_rank of the product of the two matrices."""
    denoiser = DiER(small_model(dim=256, modulation=modulation, modulation_rank=32)).denoiser
    with torch.no_grad():
        seen = denoiser.blocks[0].modulation(denoiser.shared(torch.eye(256)))  # (D, 6 D): a row is a column of the weights
        rest = denoiser.blocks[0].modulation(denoiser.shared(torch.zeros(1, 256)))
    assert rest.view(6, 256).unique(dim=1).flatten().tolist() == [0, 0, 1, 0, 0, 1]
    assert (seen - rest).std().item() == pytest.approx(0.02, rel=0.05)


def test_full_draws_its_initial_weights_in_the_order_it_always_had() -> None:
    """Written out: every linear layer in turn, then the modulations of the encoder, of the denoiser, and the last layers."""
    config = small_model(init_seed=5)
    block = ["attention.qkv", "attention.out", "mlp.0", "mlp.2", "modulation"]
    blocks = [f"blocks.{number}.{name}" for number in range(2) for name in block]
    ends = {"encoder": ["head"], "denoiser": ["modulation", "out"]}
    starts = {"encoder": [], "denoiser": ["embedding"]}
    order = [
        f"{part}.{name}"
        for part in ends
        for name in ["patches", "timestep.mlp.0", "timestep.mlp.2", *starts[part], *blocks, *ends[part]]
    ]
    found = DiER(config).state_dict()
    expected = {name: torch.empty_like(found[f"{name}.weight"]) for name in order}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(5, "initialisation").initial_seed())
        for name in order:
            nn.init.xavier_uniform_(expected[name])
        for part, std in (("encoder", 0.0), ("denoiser", 0.02)):
            for number in range(2):
                nn.init.normal_(expected[f"{part}.blocks.{number}.modulation"], std=std)
        for name in ("denoiser.modulation", "denoiser.out"):
            nn.init.normal_(expected[name], std=0.02)
    assert {f"{name}.weight" for name in order} | {"encoder.norm.weight"} == {name for name in found if name.endswith("weight")}
    for name, weight in expected.items():
        assert torch.equal(found[f"{name}.weight"], weight), name
    for name, bias in found.items():
        if name.endswith("bias"):
            gates = torch.tensor([0.0, 0, 1, 0, 0, 1]).repeat_interleave(32) if ".blocks." in name and "modulation" in name else 0
            assert torch.equal(bias, torch.zeros_like(bias) + gates), name


def test_a_third_of_large_is_modulation_and_the_others_have_next_to_none() -> None:
    depth, dim, heads = SIZES["large"]
    full, single, low_rank = (
        parameters(ModelConfig(depth, dim, heads, 32, 32, 3, 4, 256, modulation=modulation)) for modulation in MODULATIONS
    )
    matrix = 6 * dim**2
    assert 0.9e9 < full < 1e9
    assert 48 * matrix / full == pytest.approx(1 / 3, abs=0.01)
    assert full - single == 48 * matrix - 2 * (matrix + 6 * dim)  # one a network stays, with its biases
    assert full - low_rank == 48 * (matrix - 7 * 64 * dim)


def test_a_rank_that_saves_nothing_is_refused() -> None:
    small_model(modulation="low_rank", modulation_rank=27)
    with pytest.raises(ConfigError, match=r"model\.modulation_rank 28 saves nothing at width 32: use at most 27"):
        small_model(modulation="low_rank", modulation_rank=28)
