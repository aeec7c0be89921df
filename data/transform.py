"""One image to the size and channels that were asked for."""

import numpy as np
import PIL.Image
from PIL import ImageOps

from data.sources import Image


def fit(image: Image, size: int | None, channels: int | None) -> Image:
    """An image (H, W, C) uint8 to (size, size, channels); null leaves either as it is.

    An oblong image is cut to its central square, so that nothing is stretched; resampling is bicubic with antialiasing.
    Colour to grey is ITU-R 601 luma; grey to colour repeats the value.
    """
    wanted = (size or image.shape[0], size or image.shape[1], channels or image.shape[2])
    if image.shape == wanted:
        return image
    picture = to_picture(image)
    return to_array(fit_picture(picture, (size, size) if size else None, channels or image.shape[2]))


def fit_picture(picture: PIL.Image.Image, size: tuple[int, int] | None, channels: int) -> PIL.Image.Image:
    """The same for a Pillow picture of any 8-bit mode, to a size of (width, height)."""
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None and picture.size != size:
        picture = ImageOps.fit(picture, size, PIL.Image.Resampling.BICUBIC)
    return picture


def to_picture(image: Image) -> PIL.Image.Image:
    """An image (H, W, C) uint8, C 1 or 3, as a grey or RGB picture."""
    return PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def to_array(picture: PIL.Image.Image) -> Image:
    """A grey or RGB picture as (H, W, C) uint8."""
    array = np.asarray(picture, dtype=np.uint8)
    return array[..., None] if array.ndim == 2 else array
