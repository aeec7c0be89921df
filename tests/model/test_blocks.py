import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.blocks import Attention, Block, TimestepEmbedding, patchify, position_code, unpatchify


def test_attention_equals_torchs_own() -> None:
    ours, theirs = Attention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(5, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], rtol=1e-4, atol=1e-5)


def test_a_block_with_gates_at_one_and_no_modulation_is_a_plain_pre_norm_block() -> None:
    block = Block(24, 3)
    block.start_with_gates(1.0, std=0.0)
    plain = nn.TransformerEncoderLayer(24, 3, 96, dropout=0, activation=lambda x: F.gelu(x, approximate="tanh"), batch_first=True,
                                       norm_first=True, layer_norm_eps=1e-6)  # fmt: skip
    plain.self_attn.in_proj_weight.data, plain.self_attn.in_proj_bias.data = (
        block.attention.qkv.weight.data,
        block.attention.qkv.bias.data,
    )
    plain.self_attn.out_proj.load_state_dict(block.attention.out.state_dict())
    plain.linear1.load_state_dict(block.mlp[0].state_dict())
    plain.linear2.load_state_dict(block.mlp[2].state_dict())
    x = torch.randn(4, 9, 24)
    torch.testing.assert_close(block(x, torch.randn(4, 24)), plain(x), rtol=1e-4, atol=1e-5)


def test_gates_at_zero_make_a_block_the_identity() -> None:
    block = Block(24, 3)
    block.start_with_gates(0.0, std=0.0)
    x = torch.randn(4, 9, 24)
    torch.testing.assert_close(block(x, torch.randn(4, 24)), x)


@pytest.mark.parametrize(("channels", "height", "width", "patch"), [(1, 8, 8, 2), (3, 12, 8, 4), (1, 28, 28, 7)])
def test_patches_go_back_to_where_they_came_from(channels: int, height: int, width: int, patch: int) -> None:
    x = torch.randn(2, channels, height, width)
    patches = patchify(x, patch)
    assert patches.shape == (2, height * width // patch**2, channels * patch**2)
    torch.testing.assert_close(patches[0, 1].view(channels, patch, patch), x[0, :, :patch, patch : 2 * patch])
    torch.testing.assert_close(unpatchify(patches, (height // patch, width // patch), patch), x)


def test_every_place_has_a_code_of_its_own_that_starts_at_sine_zero() -> None:
    code = position_code((3, 5), 32)
    assert code.shape == (15, 32)
    assert len({tuple(row.tolist()) for row in code}) == 15
    torch.testing.assert_close(code[0, :8], torch.zeros(8))
    torch.testing.assert_close(code[0, 8:16], torch.ones(8))


def test_timestep_sinusoids_have_the_closed_form() -> None:
    embedding = TimestepEmbedding(16)
    embedding.mlp = nn.Identity()
    out = embedding(torch.tensor([0, 10]))
    torch.testing.assert_close(out[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    rates = 10_000 ** (-torch.arange(128) / 128)
    torch.testing.assert_close(out[1], torch.cat([(10 * rates).cos(), (10 * rates).sin()]), rtol=1e-4, atol=1e-5)


def test_one_condition_for_all_images_is_the_same_as_one_each() -> None:
    block = Block(24, 3)
    block.start_with_gates(1.0, std=0.5)
    x, c = torch.randn(4, 9, 24), torch.randn(1, 24)
    torch.testing.assert_close(block(x, c), block(x, c.expand(4, 24)), rtol=1e-4, atol=1e-5)
