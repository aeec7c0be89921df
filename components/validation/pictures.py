"""Pictures for the Data Docs: near-duplicates side by side, and curves of the statistics. The same data gives the same bytes."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.validation.expectations import Measures
from data.format import SPLITS, Dataset
from data.quality.near_duplicates import Pair

SHOWN = 24
"""Pairs in the docs and in pairs.png."""
SIDE = 112
"""Pixels that the longer side of a shown image has."""
GAP = 8
COLUMNS = 4
BINS = 48


@dataclass(frozen=True)
class ShownPair:
    """Two images beside each other."""

    pair: Pair
    picture: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture as a PNG inside a link, so that a page needs no second file."""
        file = io.BytesIO()
        self.picture.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def pairs(dataset: Dataset, found: list[Pair]) -> list[ShownPair]:
    """The most alike pairs, at most SHOWN."""
    sides = [((pair.split, pair.index), (pair.other_split, pair.other_index)) for pair in found[:SHOWN]]
    images: dict[tuple[str, int], npt.NDArray[np.uint8]] = {}
    for name in {name for both in sides for name, _ in both}:  # a split's at once: a shard is read once for all of them
        rows = sorted({index for both in sides for split, index in both if split == name})
        images |= {(name, row): image for row, image in zip(rows, dataset.split(name).images[rows], strict=True)}
    return [ShownPair(pair, _beside(images[one], images[other])) for pair, (one, other) in zip(found[:SHOWN], sides, strict=True)]


def _beside(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> Image.Image:
    both = [_enlarged(left), _enlarged(right)]
    canvas = Image.new("RGB", (2 * both[0].width + GAP, both[0].height), "white")
    canvas.paste(both[0], (0, 0))
    canvas.paste(both[1], (both[0].width + GAP, 0))
    return canvas


def _enlarged(image: npt.NDArray[np.uint8]) -> Image.Image:
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    picture = Image.fromarray(np.broadcast_to(image, (height, width, 3)).copy(), "RGB")
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), how)


def montage(shown: list[ShownPair]) -> Image.Image:
    """All shown pairs in one picture, in rows of COLUMNS."""
    width, height = shown[0].picture.size
    columns, rows = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
    step = (width + 3 * GAP, height + 2 * GAP)
    canvas = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), "white")
    for i, one in enumerate(shown):
        canvas.paste(one.picture, (GAP + i % COLUMNS * step[0], GAP + i // COLUMNS * step[1]))
    return canvas


def histograms(measures: Measures, column: str) -> dict[str, str]:
    """For each split the distribution of a statistic over 0 .. 255, as the points of an SVG polyline in a box of 100 x 40."""
    counts = {}
    for split in SPLITS:
        values = measures.of(split, column)
        counts[str(split)] = np.histogram(values, BINS, (0, 256))[0] / len(values)
    tallest = max(float(count.max()) for count in counts.values())
    return {
        split: " ".join(f"{(i + 0.5) * 100 / BINS:.2f},{40 - 38 * share / tallest:.2f}" for i, share in enumerate(count))
        for split, count in counts.items()
    }
