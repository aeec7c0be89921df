"""What is varied while training and at no other time: views of an image, masked tokens, embeddings that are withheld (zeros).

Everything is a function of (seed, step, place in the global batch), as all of a step is, and happens on the images' device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rng import Draws
from .options import TrainConfig

LEAST_AREA = 0.4
"""A crop is between this share of the image and all of it, in the image's own proportions, scaled up to its size."""
FLIPPED = 0.5
"""Share of the views that are mirrored left to right, where mirroring is allowed."""
JITTERED, GREYED = 0.8, 0.2
"""Shares of the views whose colours are changed, and of those that are left without colour; SimCLR's (arXiv 2002.05709)."""
STRENGTH, HUE = 0.4, 0.1
"""How far factors of brightness, contrast and saturation are from 1 at most, and of a circle by how much a hue is turned."""
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""Red, green and blue to brightness and two axes of colour; a grey has none of these."""


def vary(config: TrainConfig, tokens: int, step: int, places: slice, x0: Tensor) -> dict[str, Tensor]:
    """What the loss of a step is given beside t and noise, by `DiER.forward`'s names.

    x0 (N, C, H, W) in [-1, 1] are the images at `places` of the batch.
    """
    given, draws = {"x0": x0}, Draws(config.seed, step, places, x0.device)
    if config.views != "off":
        seen, encoder_view = two_views(config.views, draws, x0)
        if config.identity_share:
            alike = draws.uniform("identity") < config.identity_share
            encoder_view = torch.where(_each(alike), seen, encoder_view)
        given = {"x0": seen, "encoder_view": encoder_view}
    if config.mask_ratio:
        drawn = draws.uniform("mask", tokens)
        given["ids_keep"] = drawn.argsort(dim=1, stable=True)[:, : tokens_kept(tokens, config.mask_ratio)]
    if config.condition_dropout:
        given["condition_mask"] = (draws.uniform("condition") >= config.condition_dropout).float()
    return given


def two_views(views: str, draws: Draws, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of each image, each by its own draws: crop | crop_flip | crop_flip_colour. x0 and both (N, C, H, W) in [-1, 1]."""
    drawn = draws.uniform("views", 2, 4)
    pair = [crop(x0, drawn[:, i], flip=views != "crop") for i in range(2)]
    if views == "crop_flip_colour":
        drawn = draws.uniform("colours", 2, 6)
        pair = [colour(view, drawn[:, i]) for i, view in enumerate(pair)]
    return pair[0], pair[1]


def crop(x: Tensor, drawn: Tensor, *, flip: bool) -> Tensor:
    """One crop of each image, bilinear, as large as the image.

    x (N, C, H, W); drawn (N, 4) uniform in [0, 1): area, across, down, mirrored. A crop is never scaled down, so
    that nothing needs to be smoothed first.
    """
    side = (LEAST_AREA + (1 - LEAST_AREA) * drawn[:, 0]).sqrt()  # (N,) of the image's own
    across, down = (1 - side) * (2 * drawn[:, 1] - 1), (1 - side) * (2 * drawn[:, 2] - 1)  # centres, in [-1, 1]
    mirrored = torch.where(drawn[:, 3] < FLIPPED, -side, side) if flip else side
    zero = torch.zeros_like(side)
    where = torch.stack([mirrored, zero, across, zero, side, down], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(where, list(x.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colour(x: Tensor, drawn: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of most images changed, in this order, and some images made grey.

    x (N, C, H, W) in [-1, 1], C 1 or 3; drawn (N, 6) uniform in [0, 1): whether anything is changed, the four, whether it is made
    grey. Of one channel brightness and contrast alone change. torchvision's transforms draw from a global generator, once a batch.
    """
    brightness, contrast, saturation = (_each(1 + STRENGTH * (2 * drawn[:, i] - 1)) for i in (1, 2, 3))  # each (N, 1, 1, 1)
    y = ((x + 1) / 2 * brightness).clamp(0, 1)
    y = _blend(y, _grey(y).mean(dim=(1, 2, 3), keepdim=True), contrast)
    if x.shape[1] == 3:
        y = turn_hue(_blend(y, _grey(y), saturation), HUE * (2 * drawn[:, 4] - 1)).clamp(0, 1)
    y = torch.where(_each(drawn[:, 0] < JITTERED), 2 * y - 1, x)
    return torch.where(_each(drawn[:, 5] < GREYED), _grey(y), y)


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the colours of images (N, 3, H, W) about grey, by `turn` (N,) of a circle; their brightness stays.

    One matrix an image, where hues by HSV need a case for each sixth of the circle.
    """
    cos, sin = (2 * torch.pi * turn).cos(), (2 * torch.pi * turn).sin()
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    turned = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    to = YIQ.to(x.device)
    return torch.einsum("nij,njhw->nihw", to.inverse() @ turned @ to, x)


def _grey(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, 1, H, W)."""
    return x if x.shape[1] == 1 else torch.einsum("c,nchw->nhw", YIQ[0].to(x.device), x)[:, None]


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """From `other` (0) by way of x (1) and beyond, within [0, 1]."""
    return (factor * x + (1 - factor) * other).clamp(0, 1)


def _each(numbers: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1)."""
    return numbers.view(-1, 1, 1, 1)


def tokens_kept(tokens: int, mask_ratio: float) -> int:
    """How many of an image's tokens the encoder sees: at least one."""
    return max(1, round(tokens * (1 - mask_ratio)))
