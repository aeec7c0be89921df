"""Functions from images to features, and what is made of them without labels: averages, rows side by side, principal components."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from experiments.contestant import Features, Floats
from model.images import Images, to_tensor
from model.pooling import Grid
from model.rng import sample

Found = TypeVar("Found")

BATCH = 500
"""Images that a network is given at a time, when features are read."""
REMEMBERED = 20_000
"""Images at most whose features are remembered."""
PCA_IMAGES = 5000
"""Training images that components of features are fitted on."""


def batched(compute: Callable[[Tensor], Tensor], size: int = BATCH) -> Features:
    """Features of any number of images from a function of (n, C, H, W) in [-1, 1], n no more than `size`."""

    @torch.inference_mode()
    def features(images: Images) -> Floats:
        parts = [compute(to_tensor(images[i : i + size])).float().numpy() for i in range(0, len(images), size)]
        return np.concatenate(parts)

    return features


def pooled(x: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Tokens (N, T, D) in the ways that need no weights: their average, and averages over 2 x 2 cells, (N, D) and (N, 4 D)."""
    return {"mean": x.mean(dim=1), "grid": Grid(grid).to(x.device)(x, None)}


def side_by_side(parts: list[Features]) -> Features:
    """Several features of an image in one row."""
    return lambda images: np.concatenate([part(images) for part in parts], axis=1)


class Recent(Generic[Found]):
    """What was last computed of arrays of images, by identity (each is kept, so its identity stays its own) and a key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._last: list[tuple[Images, object, Found]] = []

    def get(self, images: Images, key: object, compute: Callable[[], Found]) -> Found:
        """What is known, else what `compute` gives, which is remembered."""
        for known, its_key, found in self._last:
            if known is images and its_key == key:
                return found
        found = compute()
        self._last = [(images, key, found), *self._last][: self._most]
        return found


def remembered(of: Features, arrays: int = 4) -> Features:
    """The same features, those of the last few arrays remembered: what is read alone and side by side is computed once."""
    recent = Recent[Floats](arrays)

    def features(images: Images) -> Floats:
        if len(images) > REMEMBERED:
            return of(images)
        return recent.get(images, None, lambda: of(images)).copy()  # the caller may overwrite what it gets

    return features


@dataclass
class Projected:
    """Features by PCA in fewer numbers. It is fitted on some of the training images when it is first asked."""

    of: Features
    images: Images
    components: int
    fitted: PCA | None = field(default=None, repr=False)

    def __call__(self, images: Images) -> Floats:
        """(N, components) float32."""
        if self.fitted is None:
            x = self.of(self.images[sample(0, len(self.images), PCA_IMAGES)])
            self.fitted = PCA(min(self.components, *x.shape), svd_solver="covariance_eigh").fit(x)
        return np.asarray(self.fitted.transform(self.of(images)), np.float32)
