"""Views of a batch do what torchvision's do to an image, and nothing to what a family must keep."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from experiments.views import FAMILIES, JITTERED, NUMBERS, YIQ, Family, family, recolour, resample, views
from model.rng import Draws

CPU = torch.device("cpu")


def images(channels: int = 3, side: int = 16, count: int = 8) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def colours(
    *, brightness: float = 0.5, contrast: float = 0.5, saturation: float = 0.5, hue: float = 0.5, grey: float = 0.9
) -> Tensor:
    """What `recolour` draws, jittered; 0.5 changes nothing."""
    return torch.tensor([[0.0, brightness, contrast, saturation, hue, grey]]).expand(8, -1)


HOW = Family(colour=0.4, hue=0.1, grey=0.2)


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("drawn", [0.0, 0.25, 1.0])
def test_the_jitter_is_torchvisions(part: str, drawn: float) -> None:
    x = images()
    adjust = getattr(functional, f"adjust_{part}")
    expected = adjust((x + 1) / 2, 1 + 0.4 * (2 * drawn - 1)) * 2 - 1
    assert torch.allclose(recolour(x, colours(**{part: drawn}), HOW), expected, atol=2e-3)


def hues(x: Tensor) -> Tensor:
    """Angles in the plane of colour, in turns."""
    _, i, q = torch.einsum("ij,njhw->nihw", YIQ, x).unbind(1)
    return torch.atan2(q, i) / (2 * math.pi)


def test_hue_is_turned_as_far_as_torchvision_turns_it_and_what_is_grey_stays() -> None:
    x = images() * 0.4  # far from the edges of the cube, where the two clip apart
    theirs = functional.adjust_hue((x + 1) / 2, 0.1)  # in another space of colour, so each by a little more or less
    turned = [(hues(y) - hues(x) + 0.5) % 1 - 0.5 for y in (recolour(x, colours(hue=1.0), HOW), theirs * 2 - 1)]
    assert torch.allclose(turned[0], turned[0].median(), atol=1e-3)
    assert abs(turned[0].median() - turned[1].median()) < 0.01
    assert abs(turned[0].median()) == pytest.approx(0.1, abs=1e-3)
    grey = images(1).expand(-1, 3, -1, -1)
    assert torch.allclose(recolour(grey, colours(hue=1.0), HOW), grey, atol=1e-3)


def test_grey_views_are_torchvisions_greys() -> None:
    x = images()
    expected = functional.rgb_to_grayscale((x + 1) / 2, 3) * 2 - 1
    assert torch.allclose(recolour(x, colours(grey=0.1), HOW), expected, atol=2e-3)


def test_colours_stay_as_they_are_in_a_share_of_the_views() -> None:
    drawn = colours(brightness=1.0, contrast=0.0, hue=1.0).clone()
    drawn[:, 0] = JITTERED
    assert torch.allclose(recolour(images(), drawn, HOW), images(), atol=1e-3)


def test_a_crop_is_the_one_that_torchvision_would_resize() -> None:
    drawn = torch.tensor([[0.0, 0.5, 0.0, 1.0, 0.9, 0.5]]).expand(8, -1)  # a quarter of the image: left, at the bottom
    ours = resample(images(), drawn, Family(least_area=0.25))
    theirs = functional.resized_crop(images(), 8, 0, 8, 8, [16, 16], antialias=False)
    assert torch.allclose(
        ours[..., 1:-1, 1:-1][..., :-1], theirs[..., 1:-1, 1:-1][..., :-1], atol=1e-4
    )  # edges see beyond the crop


def test_what_is_drawn_mirrored_is_mirrored_where_the_family_allows_it() -> None:
    whole = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.1, 0.5]]).expand(8, -1)
    assert torch.allclose(resample(images(), whole, Family(flip=True)), images().flip(3), atol=1e-5)
    assert torch.allclose(resample(images(), whole, Family()), images(), atol=1e-5)


def test_a_turn_is_torchvisions() -> None:
    whole = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.9, 1.0]]).expand(8, -1)
    x = functional.gaussian_blur(images(1, 32), [9, 9])
    ours, theirs = resample(x, whole, Family(turned=15)), functional.rotate(x, 15, functional.InterpolationMode.BILINEAR)
    inner = slice(10, 22)  # torchvision fills the corners with zeros
    assert torch.allclose(ours[..., inner, inner], theirs[..., inner, inner], atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_depend_on_seed_step_and_place_alone(name: str, channels: int) -> None:
    def drawn(step: int, places: slice) -> Draws:
        return Draws(3, step, places, CPU)

    x = images(channels)
    first, second = views(x, drawn(5, slice(0, 8)), family(name))
    assert first.shape == x.shape
    assert first.abs().max() <= 1 + 1e-5
    assert not torch.equal(first, second)
    again, _ = views(x[4:], drawn(5, slice(4, 8)), family(name))
    assert torch.allclose(again, first[4:], atol=1e-5)
    assert not torch.equal(views(x, drawn(6, slice(0, 8)), family(name))[0], first)


def test_glyphs_are_not_mirrored_and_garments_keep_their_greys() -> None:
    assert not FAMILIES["digits"].flip
    assert not FAMILIES["garments"].colour
    drawn = torch.rand(8, NUMBERS - 6)
    assert recolour(images(1), drawn, FAMILIES["garments"]) is not None
    assert torch.equal(recolour(images(1), drawn, FAMILIES["garments"]), images(1))
    with pytest.raises(ValueError, match="no family of views 'faces'"):
        family("faces")
