"""A small ResNet as encoder: t joins by FiLM (arXiv 1709.07871), and it begins with a frozen whitening of the training images.

Four stages of width D/4, D/2, D and D, with pre-norm blocks (arXiv 1603.05027) and group norms, which do not depend on the batch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Recomputed
from .config import ModelConfig
from .stems import Whitening, group_norm, patch_mask, start_convolutions


class ResBlock(Recomputed):
    """Two 3x3 convolutions beside a shortcut; between them the condition c scales and shifts the channels."""

    def __init__(self, before: int, after: int, dim: int) -> None:
        super().__init__()
        self.norm1 = group_norm(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm2 = group_norm(after)
        self.film = nn.Linear(dim, 2 * after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (N, before, H, W); c (N, D), or (1, D) for all; gives (N, after, H, W)."""
        shift, scale = self.film(c)[:, :, None, None].chunk(2, dim=1)  # each (N, after, 1, 1)
        out = self.conv1(F.gelu(self.norm1(x)))
        out = self.conv2(F.gelu(self.norm2(out) * (1 + scale) + shift))
        return out + self.shortcut(x)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Images and the condition c to tokens: the pixels of the last map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.whitening = Whitening(config.channels)
        widths = config.resnet_widths
        self.narrow = nn.Conv2d(2 * len(self.whitening.bias), widths[0], 1)
        befores = [widths[0], *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.ModuleList(ResBlock(after if number else before, after, config.dim) for number in range(config.resnet_blocks))
            for before, after in zip(befores, widths, strict=True)
        )

    def initialise(self) -> None:
        """No block looks at t yet."""
        start_convolutions(self)
        for module in self.modules():
            if isinstance(module, ResBlock):
                nn.init.zeros_(module.film.weight)

    def forward(self, x0: Tensor, c: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """x0 (N, C, H, W) in [-1, 1], c (N, D) or (1, D) after its non-linearity; gives (N, T, D) for T pixels of the last map.

        Of the image's patches only `ids_keep` (N, K) are seen: the whitened others are zero, which is their mean.
        """
        mask = None if ids_keep is None else patch_mask(ids_keep, self.config)
        x = F.gelu(self.whitening(x0, mask))  # (N, 18 C, H, W)
        for number, (blocks, times) in enumerate(zip(self.stages, self.config.resnet_halvings, strict=True)):
            for _ in range(times):
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            if number == 0:
                x = self.narrow(x)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, c)
        return x.flatten(2).mT
