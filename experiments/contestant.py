"""What a method is in the contest, and how much it may spend: the contract between `methods` and who evaluates them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model.images import Images

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
"""(N,) in [0, classes)."""
Features = Callable[[Images], Floats]
"""Images (N, H, W, C) uint8 to features (N, D) float32. An image's features do not depend on the others it is given with."""
Look = Callable[[int, Mapping[str, Features]], None]
"""Called with the steps done and the features as they are then, by name ("t=100", "block 2, t=20, grid"): val chooses which one.
The features are good until the look returns; its seconds do not count."""
Setting = Mapping[str, Any]
"""What a method is tuned by, for example {"lr": 1e-3}; each method says what it reads, and refuses what it does not know.
Every method takes `family`, a word of the set ("natural", "garments", "digits") that says which views leave its images what they
are, whether it makes views or not."""


@dataclass(frozen=True)
class Budget:
    """How long to train. A method that trains by no steps (PCA, patches) leaves it aside."""

    steps: int
    batch_size: int
    looks: tuple[int, ...] = ()
    """Numbers of steps done after which `look` is called, ascending; the end is no look unless it is named."""


@dataclass(frozen=True)
class Trained:
    """What a method gives, and what it took. Looks, and the first two steps, which warm caches, are not in its seconds' rate."""

    features: Mapping[str, Features]
    steps: int
    flops: float
    """Of the whole training: matrix products and convolutions of one step, forward and backward, times the steps."""
    cpu_seconds: float
    """Of this process's processors, all threads together, in training alone."""
    parameters: int
    """Of what gives the features; what is thrown away after training is not among them."""


class Contestant(Protocol):
    """Trains on images (N, H, W, C) uint8; everything is a function of the arguments.

    `labels` (N,) are None for all methods but the supervised ceiling. Raises ValueError for a setting that it does not know.
    """

    def __call__(
        self,
        images: Images,
        labels: Labels | None,
        *,
        budget: Budget,
        seed: int,
        setting: Setting,
        look: Look | None = None,
    ) -> Trained:
        """Train, and give what turns images into features."""
