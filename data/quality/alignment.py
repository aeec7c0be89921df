"""How alike two pictures are once aligned: over flips and shifts by up to a pixel, whatever their brightness and contrast."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

SIDE = 64
"""Larger images are averaged down to this many pixels a side by `shrunk`."""
MIN_CONTRAST = np.float32(2.0)
"""Pictures with a standard deviation below this many grey levels have nothing to compare."""


def distances(queries: Floats, others: Floats, row: Ints) -> npt.NDArray[np.float64]:
    """Distance of queries[row[i]] to others[i] over flips and shifts: (P,), rounded so that the last bits decide nothing."""
    correlation: npt.NDArray[np.float64] = np.zeros(len(others))
    middle = _unit(others[:, 1:-1, 1:-1])
    flips = np.stack([middle, middle[:, ::-1], middle[:, :, ::-1], middle[:, ::-1, ::-1]], 1).reshape(len(others), 4, -1)
    height, width = queries.shape[1:]
    for down in range(3):
        for right in range(3):
            shifted = _unit(queries[:, down : height - 2 + down, right : width - 2 + right]).reshape(len(queries), -1)
            np.maximum(correlation, np.einsum("pfn,pn->pf", flips, shifted[row]).max(1), out=correlation)
    distance: npt.NDArray[np.float64] = np.sqrt(np.clip(1 - correlation**2, 0, 1))
    return distance.round(3)


def _unit(window: Floats) -> Floats:
    """Blurred, with mean 0 and norm 1 for each image. A nearly blank window keeps a norm below 1, so it correlates with nothing.

    The blur comes after a window is cut out: before, it would draw on pixels beyond it, which differ between shifted pictures.
    """
    around = np.pad(window, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]
    blurred = (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 16
    blurred -= blurred.mean((1, 2), keepdims=True)
    norm = np.linalg.norm(blurred, axis=(1, 2), keepdims=True)
    least = MIN_CONTRAST / 2 * np.sqrt(np.float32(window.shape[1] * window.shape[2]))  # the blur takes some of the contrast
    unit: Floats = blurred / np.maximum(norm, least)
    return unit


def grey(images: npt.NDArray[np.uint8]) -> Floats:
    """(N, H, W, C) uint8 to the mean of the channels (N, H, W) float32, 0 .. 255."""
    channels = images.shape[3]
    total = images[..., 0].astype(np.float32)
    for channel in range(1, channels):
        total += images[..., channel]
    mean: Floats = total / np.float32(channels)
    return mean


def shrunk(images: npt.NDArray[np.uint8]) -> Floats:
    """Grey levels (N, h, w) of at most SIDE pixels a side."""
    levels = grey(images)
    height, width = levels.shape[1:]
    return levels if is_small(images) else _averaging(height) @ levels @ _averaging(width).T


def is_small(images: npt.NDArray[np.uint8]) -> bool:
    """Whether `shrunk` leaves these images as they are."""
    return bool(max(images.shape[1:3]) <= SIDE)


def _averaging(size: int) -> Floats:
    """The matrix (min(size, SIDE), size) that averages pixels by the area that they share with a larger pixel."""
    target = min(size, SIDE)
    edges, pixel = np.linspace(0, size, target + 1), np.arange(size)
    shared = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights: Floats = (np.clip(shared, 0, None) * target / size).astype(np.float32)
    return weights
