"""Where a block's shifts, scales and gates come from: adaptive layer normalisation (adaLN) in three sizes.

A block of width D takes 6 D numbers from the condition c. Attention and perceptron have 12 D^2 weights, and

- `full`, DiT's own (arXiv 2212.09748, section 3.2), adds 6 D^2 a block: a third of the whole, with the same work a token;
- `single` (adaLN-single, PixArt-alpha, arXiv 2310.00426, section 2.3) has one projection of 6 D^2 a network, and a table of
  6 D numbers a block that is added to what it gives;
- `low_rank` has a projection a block through a bottleneck of r numbers: 7 r D a block.

All start alike: shifts and scales at 0 and gates at a given value, but for what weights around 0 add to them.
"""

import torch
from torch import Tensor, nn


class Full(nn.Linear):
    """c (N, D) to (N, 6 D) by a matrix of the block's own."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 6 * dim)

    def start(self, gate: float, std: float) -> None:
        """Weights of the given spread around 0, shifts and scales at 0, both gates at `gate`."""
        nn.init.normal_(self.weight, std=std)
        _rest(self.bias, gate)


class LowRank(nn.Sequential):
    """c (N, D) to (N, 6 D) through r numbers."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__(nn.Linear(dim, rank, bias=False), nn.Linear(rank, 6 * dim))

    def start(self, gate: float, std: float) -> None:
        """As `Full.start`, where the spread is that of the two matrices' product: it adds r terms of the first one's spread."""
        down, up = self
        assert isinstance(down, nn.Linear)
        assert isinstance(up, nn.Linear)
        terms = down.out_features * 2 / (down.in_features + down.out_features)  # xavier's variance is 2 / (D + r)
        nn.init.normal_(up.weight, std=std / terms**0.5)
        _rest(up.bias, gate)


class Table(nn.Module):
    """What the network's one projection gives, (N, 6 D), plus a table (6, D) of the block's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(6, dim))

    def start(self, gate: float, std: float) -> None:
        """Shifts and scales at 0, both gates at `gate`; the spread is that of the network's projection, which has the weights."""
        _rest(self.table.view(-1), gate)

    def forward(self, c: Tensor) -> Tensor:
        """Add the block's own numbers."""
        return c + self.table.flatten()


def of_block(kind: str, dim: int, rank: int) -> Full | LowRank | Table:
    """A block's modulation, by `model.modulation`."""
    return LowRank(dim, rank) if kind == "low_rank" else Table(dim) if kind == "single" else Full(dim)


def of_network(kind: str, dim: int) -> nn.Module:
    """What turns a network's condition (N, D) into what its blocks are given: itself, or with `single` (N, 6 D)."""
    return nn.Linear(dim, 6 * dim) if kind == "single" else nn.Identity()


def twice(shift: Tensor, scale: Tensor, then_shift: Tensor, then_scale: Tensor) -> tuple[Tensor, Tensor]:
    """One shift and scale, as 1 + scale, for two after each other; each broadcasts to (N, 1, D)."""
    return shift * (1 + then_scale) + then_shift, scale + then_scale + scale * then_scale


def _rest(offsets: Tensor, gate: float) -> None:
    """Fill (6 D,): shift, scale, gate of the attention, then of the perceptron."""
    with torch.no_grad():
        shift1, scale1, gate1, shift2, scale2, gate2 = offsets.chunk(6)
        for part in (shift1, scale1, shift2, scale2):
            part.zero_()
        for part in (gate1, gate2):
            part.fill_(gate)
