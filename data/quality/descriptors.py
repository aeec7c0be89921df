"""What describes a picture whatever its flips, shifts, brightness and contrast: the magnitudes of its low spatial frequencies.

A shift changes only the phases; a flip along one axis turns frequency (u, v) into (-u, v), so the two are averaged.
"""

import numpy as np
import numpy.typing as npt

from data.format import Split
from data.npy_stream import Rows, blocks_of
from data.quality.alignment import MIN_CONTRAST, Floats, shrunk
from data.quality.blocks import at_once, blocks_in

FREQUENCIES = 8
"""Highest spatial frequency in a descriptor, in periods an image."""
BLOCK_BYTES = 2**20


def descriptors_of(split: Split) -> Floats:
    """`descriptors` of a split's images, each shard read once, in order."""
    blocks = blocks_in(split, at_once(split, BLOCK_BYTES))
    return np.concatenate([_descriptor(shrunk(split.images[rows])) for rows in blocks])


def descriptors(images: npt.NDArray[np.uint8] | Rows) -> Floats:
    """(N, H, W, C) uint8 to unit vectors (N, F) that shifts, flips, brightness and contrast hardly change; 0 if nearly blank."""
    return np.concatenate([_descriptor(shrunk(images[rows])) for rows in blocks_of(images, BLOCK_BYTES)])


def _descriptor(levels: Floats) -> Floats:
    count, height, width = levels.shape
    contrast = levels.std((1, 2), keepdims=True)
    levels = (levels - levels.mean((1, 2), keepdims=True)) * (contrast >= MIN_CONTRAST)
    high = np.arange(min(FREQUENCIES, height // 2) + 1)
    wide = np.arange(min(FREQUENCIES, width // 2) + 1)
    magnitude = np.abs(np.fft.fft(np.fft.rfft(levels, axis=2)[:, :, wide], axis=1))  # (N, H, V)
    folded = (magnitude[:, high] + magnitude[:, -high % height]).reshape(count, -1)[:, 1:]  # (N, F): (u, v) with (-u, v), no mean
    vector = np.sqrt(folded)  # magnitudes fall steeply with frequency; the root lets the finer ones count
    unit: Floats = vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-6)
    return unit
