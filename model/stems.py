"""What an encoder begins with: convolutions down to the patches, or a frozen whitening of small windows; and masks for both."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig

WINDOW = 3
"""Pixels a side of what is whitened."""
LEAST_VARIANCE = 5e-4
"""Added to each direction's variance, as a share of their mean: what hardly varies is not blown up to size 1."""
WHITENED_AT_ONCE = 2**18
"""Windows whose products are summed at a time, at most: 57 MB of them in colour."""
LEAST_CHANNELS = 4
"""Of a ConvStem's first convolution, however small the patches are."""


class ConvStem(nn.Module):
    """Images (N, C, H, W) to tokens (N, T, D): 3x3 convolutions of stride 2 whose channels double, in place of one matrix a patch.

    "Early convolutions help transformers see better" (arXiv 2106.14881), with group norms, as averaged weights need no batch's
    statistics. What halving alone does not reach, a patch of 7 pixels say, is averaged down to the grid.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid, layers = config.grid, list[nn.Module]()
        for before, after in stem_channels(config):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), group_norm(after), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        self.out = nn.Linear(after, config.dim)

    def initialise(self) -> None:
        """The convolutions; the last matrix is drawn as all matrices are."""
        start_convolutions(self.convolutions)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens row by row, as those of patches."""
        x = self.convolutions(x)
        if tuple(x.shape[2:]) != self.grid:
            x = F.adaptive_avg_pool2d(x, self.grid)
        out: Tensor = self.out(x.flatten(2).mT)  # (N, T, D)
        return out


class Whitening(nn.Module):
    """Images (N, C, H, W) to the whitened windows around each pixel and what is opposite: (N, 2 * 9 C, H, W) of about unit spread.

    The rotation is PCA's, of windows of the training images, and frozen: no label, no gradient (airbench, arXiv 2404.00498). It is
    a parameter that is not trained, so it is saved, averaged and sent like all weights.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        numbers = channels * WINDOW**2
        # until there are images: each pixel of a window by itself
        self.weight = nn.Parameter(torch.eye(numbers).view(numbers, channels, WINDOW, WINDOW), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(numbers), requires_grad=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where `mask` (N, 1, H, W) is 0 every number is: the mean of what it would be."""
        edge = WINDOW // 2
        x = F.conv2d(F.pad(x, (edge,) * 4, mode="replicate"), self.weight, self.bias)
        if mask is not None:
            x = x * mask
        return torch.cat([x, -x], dim=1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Compute the rotation from images (N, C, H, W) in [-1, 1]."""
        weight, bias = whitening(x)
        self.weight.copy_(weight.view_as(self.weight))
        self.bias.copy_(bias)


def whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the windows (P,) in images (N, C, H, W): a matrix (P, P) and an offset (P,) that give each direction variance 1.

    Directions are ordered by variance, and signed so that their largest number is positive.
    """
    numbers = x.shape[1] * WINDOW**2
    total, products, count = x.new_zeros(numbers).double(), x.new_zeros(numbers, numbers).double(), 0
    for part in torch.split(x, max(1, WHITENED_AT_ONCE // math.prod(x.shape[2:]))):
        windows = F.unfold(part, WINDOW).mT.reshape(-1, numbers).double()  # (windows, P)
        total, products, count = total + windows.sum(0), products + windows.T @ windows, count + len(windows)
    mean = total / count
    variances, directions = torch.linalg.eigh(products / count - mean.outer(mean))  # ascending; directions are columns
    variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    least = LEAST_VARIANCE * variances.mean() + torch.finfo(x.dtype).eps
    weight = (directions / (variances + least).sqrt()).T  # (P, P), a direction a row
    return weight.to(x.dtype), -(weight @ mean).to(x.dtype)


def patch_mask(ids_keep: Tensor, config: ModelConfig) -> Tensor:
    """(N, 1, H, W) of 0 and 1: which pixels are in one of the patches `ids_keep` (N, K), by their number row by row."""
    kept = torch.zeros(len(ids_keep), config.tokens, device=ids_keep.device).scatter_(1, ids_keep, 1.0)
    side = config.patch_size
    return kept.view(-1, 1, *config.grid).repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)


def stem_channels(config: ModelConfig) -> list[tuple[int, int]]:
    """Channels before and after each convolution of a ConvStem: as many as halve a patch, the last one as wide as a token."""
    number = config.patch_size.bit_length() - 1
    after = [max(LEAST_CHANNELS, config.dim >> (number - 1 - i)) for i in range(number)]
    return list(zip([config.channels, *after], after, strict=False))


def start_convolutions(network: nn.Module) -> None:
    """Draw weights that keep the size of what passes (arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def group_norm(channels: int) -> nn.GroupNorm:
    """Eight groups, or as many as divide the channels."""
    return nn.GroupNorm(math.gcd(8, channels), channels)
