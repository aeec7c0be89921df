"""Scores of an embedding that need no label; higher is taken to be better. Each is a function of vectors alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score
from sklearn.preprocessing import StandardScaler

Floats = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[np.float64]

CLUSTERS = (5, 10, 20, 40)
"""Numbers of clusters that Calinski and Harabasz's index is averaged over: how many classes there are is not known."""
CLUSTERED = 32
"""Principal components that are clustered."""
RIDGE = 1e-4
"""Added to the covariance within images, in units of its mean variance, so that it can be inverted (LiDAR adds 1e-4 too)."""


def rankme(v: Floats) -> float:
    """RankMe (arXiv 2210.02885): exp of the entropy of the singular values of embeddings v (N, D), between 1 and min(N, D)."""
    return _effective_rank(np.linalg.svd(np.asarray(v, np.float64), compute_uv=False))


def invariance(views: Floats) -> float:
    """How much embeddings differ between images, over how much between views of one: log of the ratio of mean variances.

    views (V, N, D): V views of N images; each of the D numbers is standardised first, as the probe does.
    """
    between, within = _variances(views)
    return float(np.log((np.trace(between) + 1e-12) / (np.trace(within) + 1e-12)))


def lidar(views: Floats) -> float:
    """LiDAR (arXiv 2312.04000): effective rank of the discriminants that tell images apart whatever the view, 1 .. D.

    views (V, N, D) as for `invariance`. The eigenvalues are those of the covariance between images, whitened by that within.
    """
    between, within = _variances(views)
    mean = np.trace(within) / len(within)
    found = eigh(between, within + (RIDGE * mean + 1e-12) * np.eye(len(within)), eigvals_only=True)
    return _effective_rank(found.clip(0))


def calinski_harabasz(v: Floats, seed: int) -> float:
    """How well v (N, D) falls into clusters: mean log of Calinski and Harabasz's index of k-means over CLUSTERS; 0 if N < 10."""
    standard = StandardScaler().fit_transform(v)
    numbers = [k for k in CLUSTERS if 2 * k <= len(v)]
    if not numbers or not standard.any():
        return 0.0
    parts = PCA(min(CLUSTERED, *v.shape), svd_solver="randomized", random_state=seed).fit_transform(standard)
    found = [calinski_harabasz_score(parts, KMeans(k, n_init=1, random_state=seed).fit_predict(parts)) for k in numbers]
    return float(np.mean(np.log(found)))


def rank_average(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Of each candidate, the mean over scores of the share of the others that it beats, ties counting half: 0 .. 1."""
    ranks = np.stack([rankdata(values) for values in scores.values()])  # (scores, candidates), 1 = worst
    return [float(share) for share in (ranks.mean(axis=0) - 1) / max(1, ranks.shape[1] - 1)]


def _variances(views: Floats) -> tuple[Array, Array]:
    """Covariances (D, D) of the images' means, and of views about them."""
    x = np.asarray(views, np.float64)
    x = (x - x.mean(axis=(0, 1))) / (x.std(axis=(0, 1)) + 1e-12)  # (V, N, D)
    means = x.mean(axis=0)  # (N, D)
    within = (x - means).reshape(-1, x.shape[2])  # (V N, D)
    return means.T @ means / len(means), within.T @ within / max(1, len(within) - len(means))


def _effective_rank(values: Array) -> float:
    share = values / max(values.sum(), 1e-12) + 1e-12
    return float(np.exp(-(share * np.log(share)).sum()))
