"""Random whitened patches of the training images as filters, and nothing learned beyond the whitening.

Coates and Ng, "The importance of encoding versus training with sparse coding and vector quantization" (ICML 2011): each window of
an image is normalised and whitened, multiplied with patches drawn at random from the training set and themselves whitened, and what
exceeds a threshold is kept, for each sign by itself; then averages over the cells of a 2 x 2 grid. louity/patches (arXiv
2101.07528) shows how far that goes. There are 8 features a patch, so it stands in the contest unrestricted, and by PCA at an
embedding's size.
"""

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.contestant import Budget, Features, Labels, Look, Setting, Trained
from experiments.features import PCA_IMAGES, Projected, batched
from experiments.networks import read
from experiments.training import step_flops
from model.images import Images, to_tensor
from model.rng import generator, sample

WINDOWS = 100_000
"""Random windows that the whitening is computed from."""
POOLED = 2
"""Cells down and across."""
AT_ONCE = 32
"""Images at a time: 729 windows of each, times all filters."""


class Patches:
    """Filters: whitened patches (K, P) of unit length, and the whitening that every window passes before."""

    def __init__(self, images: Images, given: Setting, seed: int) -> None:
        self.side, self.threshold = given["side"], given["threshold"]
        windows = normalised(random_windows(images, self.side, WINDOWS, seed))  # (M, P)
        self.mean = windows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(windows.T))
        # ZCA; as a share of the mean variance, what is added keeps noise from being blown up
        scale = (values.clamp(min=0) + given["regularised"] * values.mean()).rsqrt()
        self.whiten = vectors @ torch.diag(scale) @ vectors.T  # (P, P)
        drawn = torch.randperm(len(windows), generator=generator(seed, "patches"))[: given["patches"]]
        self.filters = F.normalize((windows[drawn] - self.mean) @ self.whiten, dim=1)  # (K, P)

    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to (N, 8 K)."""
        windows = normalised(F.unfold(x, self.side).mT)  # (N, T, P)
        found = (windows - self.mean) @ (self.whiten @ self.filters.T)  # (N, T, K)
        down, across = x.shape[2] - self.side + 1, x.shape[3] - self.side + 1
        maps = found.mT.reshape(len(x), -1, down, across)  # (N, K, H', W')
        both = [F.adaptive_avg_pool2d(F.relu(sign * maps - self.threshold), POOLED).flatten(1) for sign in (1, -1)]
        return torch.cat(both, dim=1)


def normalised(windows: Tensor) -> Tensor:
    """Brightness and contrast taken out of each window (..., P); the variance of 10 grey values of 255 is added, as Coates does."""
    variance, mean = torch.var_mean(windows, dim=-1, keepdim=True)
    return (windows - mean) / (variance + 10 / 127.5**2).sqrt()


def random_windows(images: Images, side: int, count: int, seed: int) -> Tensor:
    """`count` windows (count, C * side * side) at random places of random images, ordered as F.unfold has them."""
    chosen = sample(seed, len(images), min(len(images), 10_000))
    x, draws = to_tensor(images[chosen]), generator(seed, "windows")
    per_image = -(-count // len(x))
    rows = torch.arange(len(x)).repeat_interleave(per_image)[:count]
    top = torch.randint(x.shape[2] - side + 1, (count,), generator=draws)
    left = torch.randint(x.shape[3] - side + 1, (count,), generator=draws)
    steps = torch.arange(side)
    down, across = top[:, None, None] + steps[:, None], left[:, None, None] + steps  # (count, side, 1), (count, 1, side)
    windows = x.permute(0, 2, 3, 1)[rows[:, None, None], down, across]  # (count, side, side, C)
    return windows.permute(0, 3, 1, 2).reshape(count, -1)


def patches(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """Unrestricted: 8 features a patch."""
    return _patches("patches", images, seed, setting, None)


def patches_pca(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """The same by PCA in `embed_dim` numbers."""
    return _patches("patches_pca", images, seed, setting, 512)


def _patches(name: str, images: Images, seed: int, setting: Setting, numbers: int | None) -> Trained:
    side = 6 if images.shape[1] >= 24 else 5 if images.shape[1] >= 16 else 3
    own: dict[str, Any] = {"patches": 512, "side": side, "threshold": 0.25, "regularised": 0.1}
    given = read(name, setting, own if numbers is None else {**own, "embed_dim": numbers})
    began = time.process_time()
    made = Patches(images, given, seed)
    features: Features = batched(made, AT_ONCE)
    if numbers is not None:
        features = Projected(features, images, given["embed_dim"])
        features(images[:1])  # fits it
    seconds = time.process_time() - began
    with torch.no_grad():
        flops = step_flops(lambda: made(to_tensor(images[:1]))) * (min(len(images), PCA_IMAGES) if numbers is not None else 0)
    return Trained({name: features}, 0, flops, seconds, made.filters.numel() + made.whiten.numel())
