"""The two ends: the encoder before any training, and the same encoder trained with the labels that no other method is given."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.contestant import Budget, Features, Labels, Look, Setting, Trained
from experiments.networks import NETWORK, count, embedding, encoder_features, make_encoder, read
from experiments.training import RECIPE, Learner, train
from experiments.views import family, resample
from model.encoder import Encoder
from model.images import Images
from model.rng import Draws


class Supervised(Learner):
    """The encoder and a linear classifier, one crop of each image in its own colours, cross-entropy with some smoothing."""

    def __init__(self, encoder: Encoder, labels: Labels, given: Setting) -> None:
        super().__init__()
        self.encoder = encoder
        self.labels = torch.from_numpy(np.array(labels, np.int64))  # a copy: they may be a read-only map
        self.classifier = nn.Linear(encoder.config.embed_dim, int(labels.max()) + 1)
        self.how, self.smoothing = family(given["family"], given["least_area"]), given["label_smoothing"]

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """The cross-entropy."""
        view = resample(x0, draws.uniform("views", 6), self.how)
        logits = self.classifier(embedding(self.encoder, view))
        return F.cross_entropy(logits, self.labels[rows], label_smoothing=self.smoothing)

    def features(self) -> Mapping[str, Features]:
        """Of the encoder: the probe is a new classifier."""
        return encoder_features(self.encoder)

    def kept(self) -> nn.Module:
        """The encoder."""
        return self.encoder


def supervised(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """The ceiling of this encoder at this budget. Raises ValueError without labels (N,)."""
    if labels is None:
        raise ValueError("supervised needs labels, and got none: give it the training set's")
    given = read("supervised", setting, {**RECIPE, **NETWORK, "label_smoothing": 0.1, "least_area": 0.6})
    return train(
        lambda: Supervised(make_encoder(images, given, seed), labels, given),
        images,
        budget=budget,
        seed=seed,
        setting=given,
        look=look,
    )


def untrained(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """The weights that the encoder begins with, whatever the budget."""
    given = read("untrained", setting, {**NETWORK})
    encoder = make_encoder(images, given, seed).eval()
    return Trained(encoder_features(encoder), 0, 0.0, 0.0, count(encoder))
