"""Transformer blocks conditioned by adaptive layer normalisation (DiT, arXiv 2212.09748, section 3.2)."""

import contextlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import modulation


class TimestepEmbedding(nn.Module):
    """t (N,) int64 in [0, NUM_TIMESTEPS) to (N, D): sinusoids of 256 frequencies through a two-layer perceptron."""

    rates: Tensor

    def __init__(self, dim: int, frequencies: int = 256) -> None:
        super().__init__()
        half = frequencies // 2
        # periods from 2 pi to 20,000 pi, as in Attention Is All You Need
        self.register_buffer("rates", torch.exp(-math.log(10_000) * torch.arange(half) / half), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """Embed the timesteps."""
        angles = t[:, None].float() * self.rates  # (N, F/2)
        out: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))  # (N, D)
        return out


class Attention(nn.Module):
    """Multi-head self-attention over (N, T, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens; the shape stays."""
        n, tokens, dim = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, T, D / heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, tokens, dim))  # (N, T, D)
        return out


class Recomputed(nn.Module):
    """A module that can keep its inputs alone, and compute the rest again in the backward pass (activation checkpointing)."""

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        """Calls `forward`, compiled where the module is. Nothing in it is random, so no generator's state is kept."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False, preserve_rng_state=False)
        return super().__call__(*inputs)


class Block(Recomputed):
    """A pre-norm transformer block whose norms are shifted, scaled and gated by a condition c.

    Zero modulation weights with gates at 1 make it start as a plain ViT block. DiT starts the gates at 0 instead; measured, that
    leaves the encoder without a gradient to learn from for long.
    """

    varying_tokens = False
    """Where compiled: one compilation for all numbers of tokens, instead of one for each."""

    def __init__(self, dim: int, heads: int, kind: str = "full", rank: int = 64, v_dim: int = 0) -> None:
        """`v_dim` numbers more modulate the norms apart from c; 0 = none."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))
        self.modulation = modulation.of_block(kind, dim, rank)
        self.embedding = nn.Linear(v_dim, 4 * dim) if v_dim else None

    def __call__(self, *inputs: Any) -> Any:
        """Calls `forward`, compiled where the block is."""
        if self.varying_tokens:
            # "maybe": a single token is a special case to the compiler, and may be
            torch._dynamo.maybe_mark_dynamic(inputs[0], 1)
        return super().__call__(*inputs)

    def start_with_gates(self, gate: float, std: float) -> None:
        """Initialise the modulation: weights of the given spread around 0, shifts and scales at 0, both gates at `gate`."""
        self.modulation.start(gate, std)
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=std)

    def forward(self, x: Tensor, c: Tensor, v: Tensor | None = None) -> Tensor:
        """x (N, T, D); c (N, D) after its non-linearity, or (1, D) for all (6 D numbers with `single`); gives (N, T, D).

        v (N, v_dim) shifts and scales once more what c did: v's scale (c's scale norm(x) + c's shift) + v's shift (SODA).
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, dim=2)  # each (N, 1, D) or (1, 1, D)
        if self.embedding is not None:
            assert v is not None
            with unrounded(x):
                given = self.embedding(v.to(self.embedding.weight.dtype))[:, None].chunk(4, dim=2)  # each (N, 1, D)
            shift1, scale1 = modulation.twice(shift1, scale1, given[0], given[1])
            shift2, scale2 = modulation.twice(shift2, scale2, given[2], given[3])
        x = x + gate1 * self.attention(modulate(self.norm1(x), shift1, scale1))
        out: Tensor = x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return out


def unrounded(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast on the device of x, for what bf16, which rounds by 0.4 %, would blur: embeddings of a young model differ by a
    hundredth of their size from image to image."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else contextlib.nullcontext()


def start_as_vit(shared: nn.Module, blocks: nn.ModuleList, std: float) -> None:
    """Initialise all modulations of a network: each block starts as a plain ViT block, but for weights of spread `std`."""
    if isinstance(shared, nn.Linear):
        nn.init.normal_(shared.weight, std=std)
    for block in blocks:
        assert isinstance(block, Block)
        block.start_with_gates(1.0, std)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale the last axis; x (N, T, D), shift and scale (N, 1, D)."""
    return x * (1 + scale) + shift


def patchify(x: Tensor, patch: int) -> Tensor:
    """Images (N, C, H, W) to patches (N, T, C * patch * patch), row by row."""
    n, c, h, w = x.shape
    x = x.view(n, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(n, (h // patch) * (w // patch), c * patch * patch)


def unpatchify(x: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `patchify`: (N, T, C * patch * patch) to (N, C, H, W); grid is patches down and across."""
    n, _, numbers = x.shape
    c = numbers // patch**2
    x = x.view(n, grid[0], grid[1], c, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(n, c, grid[0] * patch, grid[1] * patch)


def position_code(grid: tuple[int, int], dim: int) -> Tensor:
    """(T, D) fixed sine-cosine code of each patch's row and column, half the width each (MAE, arXiv 2111.06377)."""
    rates = 1 / 10_000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [place.reshape(-1, 1) * rates for place in (rows, columns)]  # each (T, D / 4)
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1).float()
