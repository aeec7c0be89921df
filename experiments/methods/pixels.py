"""What needs no network: the pixels themselves, and their principal components."""

import time

import numpy as np
from sklearn.decomposition import PCA

from experiments.contestant import Budget, Features, Floats, Labels, Look, Setting, Trained
from experiments.networks import read
from model.images import Images
from model.rng import sample

FITTED = 20_000
"""Images that components are fitted on at most."""


def flattened(images: Images) -> Floats:
    """(N, H, W, C) uint8 to (N, H * W * C) float32 in [-1, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1


def pixels(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """The pixels."""
    read("pixels", setting, {})
    return Trained({"pixels": flattened}, 0, 0.0, 0.0, 0)


def pca(images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None) -> Trained:
    """As many principal components as an embedding has numbers, a half and a quarter of that, as they are and whitened."""
    given = read("pca", setting, {"embed_dim": 512})
    began = time.process_time()
    x = flattened(images[sample(seed, len(images), FITTED)])
    largest = min(given["embed_dim"], *x.shape)
    fitted = PCA(largest, random_state=seed).fit(x)
    numbers = x.shape[1]
    # the covariance's products, and the decomposition of about 9 numbers^3 (Golub & Van Loan, section 8.3)
    flops = 2.0 * len(x) * numbers**2 + 9.0 * numbers**3

    def first(components: int, whiten: bool) -> Features:
        def features(images: Images) -> Floats:
            x = np.asarray(fitted.transform(flattened(images)), np.float32)[:, :components]
            return x / np.sqrt(fitted.explained_variance_[:components] + 1e-8, dtype=np.float32) if whiten else x

        return features

    found = {
        f"{components} components{', whitened' if whiten else ''}": first(components, whiten)
        for components in sorted({max(1, largest // share) for share in (1, 2, 4)}, reverse=True)
        for whiten in (False, True)
    }
    return Trained(found, 0, flops, time.process_time() - began, fitted.components_.size)
