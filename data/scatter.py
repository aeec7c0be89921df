"""Images scattered: each pasted on a larger blank canvas, several times, at places drawn at random.

What an image shows then fills a known share of the picture (its occupancy), and stands anywhere in it: a raw pixel says little.
The copies of an image follow each other: row r of the result is a copy of original r // copies. Places depend on the seed, the
split, the original's row in its source and the copy alone, so not on how many images are read, in which blocks, or by whom.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.errors import UnsupportedRequest
from data.format import SPLITS, SplitName

Images = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass
class Scatter:
    """Pastes a split's images on blank (0) canvases, `copies` each, `canvas` pixels a side; counts how full they are."""

    canvas: int
    copies: int
    seed: int
    split: SplitName
    pixels: int = 0
    """Pixels of the originals seen so far that are not 0 in every channel."""
    originals: int = 0

    def pasted(self, blocks: Iterable[Images], rows: Ints) -> Iterator[Images]:
        """Blocks (n, H, W, C) of the images at `rows` of their source, to blocks (copies, canvas, canvas, C) an image, in order.

        No two copies of an image stand at one place. Raises UnsupportedRequest where an image is no smaller than the canvas, or
        has fewer places than copies.
        """
        images = (image for block in blocks for image in block)
        for image, row in zip(images, rows.tolist(), strict=True):
            height, width, channels = image.shape
            self._check(height, width)
            out = np.zeros((self.copies, self.canvas, self.canvas, channels), np.uint8)
            for copy, (top, left) in zip(out, self.places(height, width, row), strict=True):
                copy[top : top + height, left : left + width] = image
            self.pixels += int(image.any(axis=2).sum())
            self.originals += 1
            yield out

    def places(self, height: int, width: int, row: int) -> list[tuple[int, int]]:
        """Top and left, in pixels, of each copy of the image at `row`, drawn without replacement from where it fits."""
        down, across = self.canvas - height + 1, self.canvas - width + 1
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), row])
        return [divmod(place, across) for place in rng.choice(down * across, self.copies, replace=False).tolist()]

    @property
    def occupancy(self) -> float:
        """The mean share of a canvas that is content, 0 .. 1: pixels that are not 0 in every channel."""
        return self.pixels / max(1, self.originals * self.canvas**2)

    def _check(self, height: int, width: int) -> None:
        if max(height, width) >= self.canvas:
            raise UnsupportedRequest(
                f"data.canvas {self.canvas} is no larger than an image of {height}x{width}: raise it, or shrink images with "
                f"data.image_size"
            )
        places = (self.canvas - height + 1) * (self.canvas - width + 1)
        if self.copies > places:
            raise UnsupportedRequest(
                f"data.copies {self.copies}: an image of {height}x{width} has {places} places on a canvas of {self.canvas} "
                f"(data.canvas), and no two copies share one: lower it, or raise the canvas"
            )
