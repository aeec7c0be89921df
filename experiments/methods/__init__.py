"""The rows of the contest: a method by its name. Variants of one are settings."""

from experiments.contestant import Contestant
from experiments.methods.controls import supervised, untrained
from experiments.methods.ddae import ddae
from experiments.methods.dier import dier
from experiments.methods.joint_embedding import simclr, vicreg
from experiments.methods.patches import patches, patches_pca
from experiments.methods.pixels import pca, pixels
from experiments.methods.reconstruction import autoencoder, mae

METHODS: dict[str, Contestant] = {
    "dier": dier,
    "ddae": ddae,
    "simclr": simclr,
    "vicreg": vicreg,
    "mae": mae,
    "autoencoder": autoencoder,
    "supervised": supervised,
    "untrained": untrained,
    "patches": patches,
    "patches_pca": patches_pca,
    "pca": pca,
    "pixels": pixels,
}
TRAINED = tuple(name for name in METHODS if name not in ("untrained", "patches", "patches_pca", "pca", "pixels"))
"""Those that train a network, by steps."""
