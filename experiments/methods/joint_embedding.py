"""SimCLR and VICReg: two views of an image are to be embedded alike, by lightly's losses and projection heads.

Both are read before the projection head, as their authors do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightly.loss import NTXentLoss, VICRegLoss
from lightly.models.modules.heads import SimCLRProjectionHead, VICRegProjectionHead
from torch import Tensor, nn

from experiments.contestant import Budget, Features, Labels, Look, Setting, Trained
from experiments.networks import NETWORK, embedding, encoder_features, make_encoder, read
from experiments.training import RECIPE, Learner, train
from experiments.views import family, views
from model.encoder import Encoder
from model.images import Images
from model.rng import Draws

SHARED: Mapping[str, Any] = {**RECIPE, **NETWORK, "weight_decay": 1e-4, "least_area": None}


class JointEmbedding(Learner):
    """An encoder, a projection head, and a loss of two batches of projections (N, P)."""

    def __init__(self, encoder: Encoder, head: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], given: Setting) -> None:
        super().__init__()
        self.encoder, self.head, self.loss, self.how = encoder, head, loss, family(given["family"], given["least_area"])

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """Both views pass the encoder and the head together, so that a head's batch norm sees both."""
        v = embedding(self.encoder, torch.cat(views(x0, draws, self.how)))  # (2 N, E)
        first, second = self.head(v).chunk(2)
        return self.loss(first, second)

    def features(self) -> Mapping[str, Features]:
        """Of the encoder, before the projection head."""
        return encoder_features(self.encoder)

    def kept(self) -> nn.Module:
        """The encoder."""
        return self.encoder


def simclr(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """SimCLR (arXiv 2002.05709): a view's projection is to find the other one among those of the batch."""
    given = read("simclr", setting, {**SHARED, "temperature": 0.5, "projection": 128})

    def make() -> Learner:
        numbers = given["embed_dim"]
        head = SimCLRProjectionHead(numbers, numbers, given["projection"])
        return JointEmbedding(make_encoder(images, given, seed), head, NTXentLoss(given["temperature"]), given)

    return train(make, images, budget=budget, seed=seed, setting=given, look=look)


def vicreg(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """VICReg (arXiv 2105.04906): views alike, each number of a projection spread over the batch, no two of them alike.

    `projection` is the width of its three layers; the authors' 8192 would take ten times the encoder's work.
    """
    given = read("vicreg", setting, {**SHARED, "projection": 1024, "invariance": 25.0, "covariance": 1.0})

    def make() -> Learner:
        head = VICRegProjectionHead(given["embed_dim"], given["projection"], given["projection"])
        loss = VICRegLoss(lambda_param=given["invariance"], nu_param=given["covariance"])
        return JointEmbedding(make_encoder(images, given, seed), head, loss, given)

    return train(make, images, budget=budget, seed=seed, setting=given, look=look)
