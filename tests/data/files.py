"""Small files for the tests, made of real images: the digits that scikit-learn ships."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits: images (N, 8, 8) uint8 and labels (N,) uint8."""
    bunch = load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.uint8)


def layout(train: int = 60, val: int = 20, test: int = 30) -> dict[str, np.ndarray]:
    """Arrays in MedMNIST's layout: images (N, 8, 8) uint8, labels (N, 1) uint8."""
    images, labels = digits()
    arrays, start = {}, 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        arrays[f"{split}_images"] = images[start : start + count]
        arrays[f"{split}_labels"] = labels[start : start + count, None]
        start += count
    return arrays


def save(path: Path, arrays: dict[str, Any], drop: tuple[str, ...] = (), **changed: Any) -> Path:
    """Write an npz of `arrays`, without those in `drop` and with those in `changed` put in their place."""
    kept = {name: array for name, array in {**arrays, **changed}.items() if name not in drop}
    np.savez_compressed(path, **kept)
    return path


def check_message(error: Exception) -> None:
    """An error for people is one line, of a length that can be read."""
    assert "\n" not in str(error)
    assert 20 < len(str(error)) < 1000
