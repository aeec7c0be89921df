"""From tokens to the head's numbers, whole images and masked ones, against torch's own layers and sums written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.config import POOLS
from model.dier import DiER
from model.errors import ConfigError
from model.pooling import Attention, Flat, Grid
from tests.model.conftest import make_trainer, small_model


@pytest.mark.parametrize("grid", [(4, 4), (7, 5), (1, 1), (1, 6), (2, 3)])
def test_the_grid_pool_is_torchs_adaptive_average(grid: tuple[int, int]) -> None:
    x = torch.randn(3, grid[0] * grid[1], 8)
    cells = tuple(min(2, side) for side in grid)
    expected = F.adaptive_avg_pool2d(x.mT.reshape(3, 8, *grid), cells)  # (N, D, cells down, cells across)
    torch.testing.assert_close(Grid(grid)(x, None), expected.flatten(2).mT.flatten(1))


def test_of_masked_tokens_a_cell_averages_those_that_are_there_and_is_zero_without_any() -> None:
    x = torch.randn(2, 3, 8)
    out = Grid((4, 4))(x, torch.tensor([[0, 5, 15], [3, 12, 13]])).view(2, 4, 8)
    zero = torch.zeros(8)
    torch.testing.assert_close(out[0], torch.stack([(x[0, 0] + x[0, 1]) / 2, zero, zero, x[0, 2]]))
    torch.testing.assert_close(out[1], torch.stack([zero, x[1, 0], (x[1, 1] + x[1, 2]) / 2, zero]))


def test_the_attention_pool_is_torchs_own_with_one_query() -> None:
    ours, theirs = Attention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    nn.init.normal_(ours.query)
    with torch.no_grad():  # the query as it is, and what was found as it is
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(24), ours.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(24), ours.kv.bias]))
        theirs.out_proj.weight.copy_(torch.eye(24))
    x = torch.randn(5, 7, 24)
    expected = theirs(ours.query.expand(5, 1, 24), x, x, need_weights=False)[0][:, 0]
    torch.testing.assert_close(ours(x, None), expected, rtol=1e-4, atol=1e-5)


def test_the_flat_heads_tokens_stand_at_their_places_scaled_as_by_dropout() -> None:
    x = torch.rand(2, 4, 32)
    whole = Flat(16)(x, torch.tensor([[3, 0, 9, 15], [8, 7, 6, 5]])).view(2, 16, 32)
    assert torch.equal(whole[0, [3, 0, 9, 15]], 4 * x[0])
    assert torch.equal(whole[1, [8, 7, 6, 5]], 4 * x[1])
    torch.testing.assert_close(whole.sum(), 4 * x.sum())


@pytest.mark.parametrize("pool", POOLS)
def test_the_encoder_learns_from_the_first_step_with_masked_tokens_too(pool: str, images, tmp_path) -> None:
    for mask_ratio in (0.0, 0.75):
        model = {"pool": pool}
        trainer = make_trainer(images, tmp_path / str(mask_ratio), model=model, steps=10, log_every=1, mask_ratio=mask_ratio)
        trainer.run()
        assert min(point["grad_norm_encoder"] for point in trainer.curve) > 1e-4


def test_the_first_two_pools_have_no_weights_so_that_older_models_load() -> None:
    for pool in POOLS:
        names = [name for name in DiER(small_model(pool=pool)).state_dict() if ".pool." in name]
        assert names == (["encoder.pool.query", "encoder.pool.kv.weight", "encoder.pool.kv.bias"] if pool == "attention" else [])


def test_flat_is_refused_above_64_tokens_with_the_count_and_what_to_use() -> None:
    small_model(pool="flat", image_height=16, image_width=16).check_new()
    with pytest.raises(ConfigError, match=r"model\.pool flat with 72 tokens, more than 64.*use grid or attention"):
        small_model(pool="flat", image_height=18, image_width=16).check_new()
    DiER(small_model(pool="flat", image_height=18, image_width=16))  # an older one is loaded
    for pool in ("grid", "attention", "mean"):
        small_model(pool=pool, image_height=18, image_width=16).check_new()
