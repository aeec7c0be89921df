"""Do two samples of embeddings come from one distribution, and which of the new ones lie far from all that was there?

The test is the maximum mean discrepancy (Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012) with a p-value by permutation.
Under the null hypothesis, that the images of both samples are independent draws from one distribution, p is uniform for any number
of images and any embedding. That is over draws of both samples: all that is held to one reference shares how that one happens to
lie. A classifier two-sample test would keep half of the images for its own training, and take seconds to fit; a test per coordinate
sees no change in how they go together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PERMUTATIONS = 1499
"""The least p is 1 / 1500. A third of 0.01 is 5 / 1500 without remainder: it is reached in just that share of tests."""
ROUNDING = 1e-7
"""Of float32: divisions that differ by less count as equal, as they do where images are copies of each other."""
MEDIAN_OF = 1000
"""Embeddings of the pool behind that median."""
NEIGHBOUR = 5
"""How far an image lies is its distance to this nearest of the reference: one odd training image vouches for nobody."""
SHARE = 0.01
"""Of the reference itself so many lie further than the limit from the rest of it."""
BLOCK = 1024
TOLD_APART = 1e-3
"""Times the length of the longest embedding: distances below that are the rounding of float32, squares lose half of its digits."""


@dataclass(frozen=True)
class Discrepancy:
    """What the test found."""

    mmd: float
    """Squared, biased (V-statistic); 0 for the same sample twice, at most 2."""
    p: float
    permutations: int


def compare(new: Floats, reference: Floats, seed: int = 0, permutations: int = PERMUTATIONS) -> Discrepancy:
    """Test whether `new` (m, D) and `reference` (n, D) are of one distribution. Memory: four times (m + n)^2 float32.

    The kernel depends on the pool alone, so that it is the same for every way to divide it: that is what makes p exact.
    """
    pool = np.concatenate([new, reference]).astype(np.float32)
    kernel = _kernel(pool, np.random.default_rng([seed, len(pool)]))
    random = np.random.default_rng([seed, len(new), len(reference)])
    weights = np.full((len(pool), permutations + 1), -1 / len(reference), np.float32)  # a column a way to divide the pool
    weights[: len(new), 0] = 1 / len(new)
    for column in range(1, permutations + 1):
        weights[random.permutation(len(pool))[: len(new)], column] = 1 / len(new)
    found = np.einsum("ij,ij->j", weights, kernel @ weights, dtype=np.float64)
    return Discrepancy(float(found[0]), float((found[1:] >= found[0] - ROUNDING).sum() + 1) / (permutations + 1), permutations)


def _kernel(pool: Floats, random: np.random.Generator) -> Floats:
    """The mean of Gaussian kernels of 2, 1 and 0.5 median distances, which sees coarse and fine changes."""
    some = pool[random.permutation(len(pool))[:MEDIAN_OF]]
    apart = _squared(some, some)[np.triu_indices(len(some), 1)]
    median = float(np.median(apart)) or 1.0  # of squares: the square of the median distance
    wide: Floats = np.exp(_squared(pool, pool) / np.float32(-8 * median))
    middle = np.square(np.square(wide))  # exp(x)^4 = exp(4 x): of half the width, and faster than exp
    mean: Floats = (wide + middle + np.square(np.square(middle))) / np.float32(3)
    return mean


def _squared(one: Floats, other: Floats) -> Floats:
    """Squared distances (len(one), len(other))."""
    found = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    floor: Floats = np.maximum(found, 0, out=found)
    return floor


class Neighbours:
    """How far images lie from a reference (n, D), and from where on that is further than the reference's own."""

    def __init__(self, reference: Floats) -> None:
        """Raises ValueError for a reference of too few images to have neighbours, and one that tells no images apart."""
        if len(reference) <= NEIGHBOUR:
            raise ValueError(f"{len(reference)} embeddings are too few to have a {NEIGHBOUR}th neighbour")
        if not np.isfinite(reference).all():
            raise ValueError("some of its embeddings are not finite")
        self._reference = reference
        self.own = self._distances(reference, NEIGHBOUR)  # each finds itself first, at 0
        """(n,): each of the reference to the rest of it."""
        self.limit = float(np.quantile(self.own, 1 - SHARE))
        if self.limit <= TOLD_APART * float(np.linalg.norm(reference, axis=1).max()):
            raise ValueError("it gives all of them the same embedding, or nearly so: the encoder has collapsed")

    def distances(self, embeddings: Floats) -> Floats:
        """Distance to the NEIGHBOURth nearest of the reference: (len(embeddings),)."""
        return self._distances(embeddings, NEIGHBOUR - 1)

    def _distances(self, embeddings: Floats, place: int) -> Floats:
        blocks = [embeddings[start : start + BLOCK] for start in range(0, len(embeddings), BLOCK)]
        return np.concatenate([np.sqrt(np.partition(_squared(block, self._reference), place, 1)[:, place]) for block in blocks])
