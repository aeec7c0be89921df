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
"""Share of the views that `crop_flip` mirrors left to right."""


def vary(config: TrainConfig, tokens: int, step: int, places: slice, x0: Tensor) -> dict[str, Tensor]:
    """What the loss of a step is given beside t and noise, by `DiER.forward`'s names.

    x0 (N, C, H, W) in [-1, 1] are the images at `places` of the batch.
    """
    given, draws = {"x0": x0}, Draws(config.seed, step, places, x0.device)
    if config.views != "off":
        drawn = draws.uniform("views", 2, 4)
        given = {name: crop(x0, drawn[:, i], flip=config.views == "crop_flip") for i, name in enumerate(("x0", "encoder_view"))}
    if config.mask_ratio:
        drawn = draws.uniform("mask", tokens)
        given["ids_keep"] = drawn.argsort(dim=1, stable=True)[:, : tokens_kept(tokens, config.mask_ratio)]
    if config.condition_dropout:
        given["condition_mask"] = (draws.uniform("condition") >= config.condition_dropout).float()
    return given


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


def tokens_kept(tokens: int, mask_ratio: float) -> int:
    """How many of an image's tokens the encoder sees: at least one."""
    return max(1, round(tokens * (1 - mask_ratio)))
