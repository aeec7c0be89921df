"""Views of images for the methods that learn from them: crops, mirrored or turned, and colours changed, for a batch at a time.

They are what torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomRotation, ColorJitter and RandomGrayscale do, on tensors:
image by image these take longer on two cores than the training step. Three things differ: crop, mirror and turn are one bilinear
resampling (as `model.training.augment.crop` does it), the jitter's parts come in one order, and hue is turned in YIQ.
Each family of sets has what leaves its images what they are: a mirrored 3 is no digit, a grey aeroplane is an aeroplane.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from model.rng import Draws

NUMBERS = 12
"""Uniform numbers that a view of an image takes."""
PROPORTIONS = 4 / 3
"""A crop is at most so much wider, or higher, than the image's own proportions."""
JITTERED = 0.8
"""Share of the views whose colours are changed at all."""
GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601), which torchvision has too."""
YIQ = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
"""From red, green, blue to luma and two axes of colour."""


@dataclass(frozen=True)
class Family:
    """What a view may change. `turned` is the largest angle in degrees, `hue` in turns, `grey` the share without colour."""

    least_area: float = 0.3
    flip: bool = False
    turned: float = 0.0
    colour: float = 0.0
    hue: float = 0.0
    grey: float = 0.0


FAMILIES = {
    "natural": Family(flip=True, colour=0.4, hue=0.1, grey=0.2),  # SimCLR's for CIFAR-10 at half the strength of colour
    "garments": Family(flip=True),
    "digits": Family(least_area=0.5, turned=15),
}


def family(name: str, least_area: float | None = None) -> Family:
    """By its name, with another smallest crop if one is given. Raises ValueError for another name."""
    if name not in FAMILIES:
        raise ValueError(f"no family of views {name!r}: use {', '.join(FAMILIES)}")
    found = FAMILIES[name]
    return found if least_area is None else replace(found, least_area=least_area)


def views(x: Tensor, draws: Draws, how: Family, number: int = 2) -> list[Tensor]:
    """So many views of each image; x (N, C, H, W) in [-1, 1], and so are they."""
    drawn = draws.uniform("views", number, NUMBERS)
    return [recolour(resample(x, drawn[:, i], how), drawn[:, i, 6:], how) for i in range(number)]


def resample(x: Tensor, drawn: Tensor, how: Family) -> Tensor:
    """A crop of each image, scaled up to its size, mirrored or turned. x (N, C, H, W); drawn (N, >= 6) uniform in [0, 1).

    What lies beyond the image is as its border.
    """
    side = (how.least_area + (1 - how.least_area) * drawn[:, 0]).sqrt()  # (N,)
    stretch = torch.exp((2 * drawn[:, 1] - 1) * math.log(PROPORTIONS) / 2)  # (N,)
    wide, high = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    across, down = (1 - wide) * (2 * drawn[:, 2] - 1), (1 - high) * (2 * drawn[:, 3] - 1)  # centres, in [-1, 1]
    if how.flip:
        wide = torch.where(drawn[:, 4] < 0.5, -wide, wide)
    angle = (2 * drawn[:, 5] - 1) * math.radians(how.turned)
    rows = [wide * angle.cos(), -high * angle.sin(), across, wide * angle.sin(), high * angle.cos(), down]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(x.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def recolour(x: Tensor, drawn: Tensor, how: Family) -> Tensor:
    """Brightness, contrast, saturation and hue changed, and some grey. x (N, C, H, W) in [-1, 1]; drawn (N, 6) uniform."""
    if not how.colour and not how.grey:
        return x
    jittered = drawn[:, 0] < JITTERED
    factors = torch.where(jittered[:, None], 1 + how.colour * (2 * drawn[:, 1:4] - 1), 1.0)  # (N, 3)
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)  # each (N, 1, 1, 1)
    pixels = ((x + 1) / 2 * brightness).clamp(max=1)  # in [0, 1], as torchvision clips
    if x.shape[1] == 1:
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        return ((pixels - mean) * contrast + mean).clamp(0, 1) * 2 - 1
    luma = torch.tensor(GREY, device=x.device)
    mean = torch.einsum("nchw,c->n", pixels, luma).view(-1, 1, 1, 1) / (x.shape[2] * x.shape[3])
    pixels = ((pixels - mean) * contrast + mean).clamp(0, 1)
    saturation = torch.where(drawn[:, 5, None, None, None] < how.grey, 0.0, saturation)
    turn = torch.where(jittered, 2 * math.pi * how.hue * (2 * drawn[:, 4] - 1), 0.0)
    pixels = torch.einsum("nij,njhw->nihw", _chroma(saturation.flatten(), turn), pixels)
    return pixels.clamp(0, 1) * 2 - 1


def _chroma(saturation: Tensor, turn: Tensor) -> Tensor:
    """(N, 3, 3): red, green, blue to what they are at this saturation (N,), their hue turned by so many radians (N,)."""
    to_yiq = YIQ.to(saturation.device)
    middle = torch.zeros(len(saturation), 3, 3, device=saturation.device)
    middle[:, 0, 0] = 1
    middle[:, 1, 1] = middle[:, 2, 2] = saturation * turn.cos()
    middle[:, 1, 2] = saturation * turn.sin()
    middle[:, 2, 1] = -middle[:, 1, 2]
    turned: Tensor = torch.linalg.inv(to_yiq) @ middle @ to_yiq
    return turned
