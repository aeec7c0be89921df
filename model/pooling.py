"""From the encoder's tokens to the numbers that its head reads. Any of the T tokens may be missing: of an image K are there.

- `mean`: their average, D numbers. What stands where is lost.
- `flat`: all of them side by side, T D numbers, zeros for those that are missing. For few tokens alone.
- `grid`: averages over the cells of a coarse grid, side by side, so that the layout of an image stays whatever its size.
- `attention`: an average whose weights are learned, by one query (the multi-head attention pooling of SigLIP, arXiv 2303.15343,
  without its perceptron; the encoder's head is the projection that follows).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig

GRID = 2
"""Cells down and across with `grid`; no more than there are tokens."""


class Mean(nn.Module):
    """Tokens (N, K, D) to (N, D)."""

    def forward(self, x: Tensor, ids_keep: Tensor | None) -> Tensor:
        """The average over those that are there."""
        return x.mean(dim=1)


class Flat(nn.Module):
    """Tokens (N, K, D) to (N, T * D)."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x: Tensor, ids_keep: Tensor | None) -> Tensor:
        """`ids_keep` (N, K) are the tokens' places. Those that are there are scaled by T / K: as dropout does, so that the head
        expects the same with all tokens there."""
        if ids_keep is None:
            return x.flatten(1)
        n, k, dim = x.shape
        whole = x.new_zeros(n, self.tokens, dim)
        return whole.scatter(1, ids_keep[:, :, None].expand(-1, -1, dim), x * (self.tokens / k)).flatten(1)


class Grid(nn.Module):
    """Tokens (N, K, D) to (N, cells * D), cells row by row; over all tokens it is torch's adaptive average pooling."""

    cells: Tensor

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        down, across = (_cells(side) for side in grid)  # (cells down, H), (cells across, W)
        self.register_buffer("cells", torch.kron(down, across).T.contiguous(), persistent=False)  # (T, cells)

    def forward(self, x: Tensor, ids_keep: Tensor | None) -> Tensor:
        """The average over the tokens of each cell that are there; zeros for a cell without any."""
        member = self.cells if ids_keep is None else self.cells[ids_keep]  # (T, cells) or (N, K, cells)
        counts = member.sum(dim=-2).clamp(min=1)[..., None]  # (cells, 1) or (N, cells, 1)
        means: Tensor = (member.transpose(-1, -2) @ x) / counts  # (N, cells, D)
        return means.flatten(1)


class Attention(nn.Module):
    """Tokens (N, K, D) to (N, D): what one learned query finds, a head at a time."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(dim))  # at zero it averages the values
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, ids_keep: Tensor | None) -> Tensor:
        """Attend to those tokens that are there."""
        n, k, dim = x.shape
        keys, values = (
            self.kv(x).view(n, k, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        )  # each (N, heads, K, D / heads)
        query = self.query.to(keys.dtype).view(1, self.heads, 1, -1).expand(n, -1, -1, -1)  # (N, heads, 1, D / heads)
        return F.scaled_dot_product_attention(query, keys, values).flatten(1)  # (N, D)


def make(config: ModelConfig) -> tuple[nn.Module, int]:
    """The pooling of `model.pool`, and how many numbers it gives an image."""
    if config.pool == "flat":
        tokens = math.prod(config.last_map)
        return Flat(tokens), tokens * config.dim
    if config.pool == "grid":
        pool = Grid(config.last_map)
        return pool, pool.cells.shape[1] * config.dim
    return (Attention(config.dim, config.heads) if config.pool == "attention" else Mean()), config.dim


def _cells(side: int) -> Tensor:
    """(cells, side) of 0 and 1: which of `side` places are in which cell; two share one where they do not divide evenly."""
    cells = min(GRID, side)
    member = torch.zeros(cells, side)
    for cell in range(cells):
        member[cell, cell * side // cells : -(-(cell + 1) * side // cells)] = 1
    return member
