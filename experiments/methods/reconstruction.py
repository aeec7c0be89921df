"""Encoders that learn by giving images back: MAE from a quarter of the patches, and a plain autoencoder from the embedding."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.contestant import Budget, Features, Labels, Look, Setting, Trained
from experiments.features import batched, pooled
from experiments.networks import NETWORK, blocks_without_t, embedding, encoder_features, make_encoder, patch_side, read, tokens
from experiments.training import RECIPE, Learner, train
from experiments.views import Family, family, resample
from model.blocks import patchify, position_code
from model.encoder import Encoder
from model.images import Images
from model.rng import Draws
from model.training.augment import tokens_kept

SHARED: Mapping[str, Any] = {**RECIPE, **NETWORK, "augment": True, "least_area": None}


class Decoder(nn.Module):
    """Tokens (N, T, D) to patches (N, T, patch_dim), by ViT blocks of their own width."""

    position: Tensor

    def __init__(self, encoder: Encoder, depth: int, dim: int) -> None:
        super().__init__()
        config = encoder.config
        self.enter = nn.Linear(config.dim, dim)
        self.register_buffer("position", position_code(config.grid, dim), persistent=False)
        self.register_buffer("condition", torch.zeros(1, dim), persistent=False)
        self.blocks = blocks_without_t(depth, dim, max(1, dim // 32))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, config.patch_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, dim), which `enter` gave."""
        x = x + self.position
        for block in self.blocks:
            x = block(x, self.condition)
        out: Tensor = self.out(self.norm(x))
        return out


class MAE(Learner):
    """MAE (arXiv 2111.06377): the encoder sees a few patches, a small decoder fills in the rest, which the loss counts."""

    def __init__(self, encoder: Encoder, given: Setting) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder, given["decoder_depth"], given["decoder_dim"])
        self.mask_token = nn.Parameter(torch.zeros(given["decoder_dim"]))
        nn.init.normal_(self.mask_token, std=0.02)
        self.kept_tokens = tokens_kept(encoder.config.tokens, given["mask_ratio"])
        self.how = family(given["family"], given["least_area"]) if given["augment"] else None

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """The mean squared error of the patches that the encoder did not see, each normalised by its own mean and variance."""
        x0 = one_view(x0, draws, self.how)
        config = self.encoder.config
        order = draws.uniform("mask", config.tokens).argsort(dim=1, stable=True)  # (N, T)
        seen, hidden = order[:, : self.kept_tokens], order[:, self.kept_tokens :]
        given = self.decoder.enter(tokens(self.encoder, x0, seen))  # (N, K, D)
        whole = self.mask_token.expand(len(x0), config.tokens, -1)
        whole = whole.scatter(1, seen[:, :, None].expand(-1, -1, given.shape[2]), given)  # (N, T, D)
        patches = patchify(x0, config.patch_size)  # (N, T, P)
        variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
        wanted = (patches - mean) / (variance + 1e-6).sqrt()
        errors = (self.decoder(whole) - wanted).square().mean(dim=2)  # (N, T)
        loss: Tensor = errors.gather(1, hidden).mean()
        return loss

    def features(self) -> Mapping[str, Features]:
        """The tokens of whole images, averaged, or over 2 x 2 cells: the head was not trained."""

        def read_as(way: str) -> Features:
            return batched(lambda x: pooled(tokens(self.encoder, x), self.encoder.config.grid)[way])

        return {way: read_as(way) for way in ("mean", "grid")}

    def kept(self) -> nn.Module:
        """The encoder."""
        return self.encoder


class Autoencoder(Learner):
    """The same encoder; from its embedding alone a mirror image of it gives the pixels back."""

    def __init__(self, encoder: Encoder, given: Setting) -> None:
        super().__init__()
        self.encoder, config = encoder, encoder.config
        self.spread = nn.Linear(config.embed_dim, config.tokens * config.dim)
        self.decoder = Decoder(encoder, given["decoder_depth"], given["decoder_dim"])
        self.how = family(given["family"], given["least_area"]) if given["augment"] else None

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """The mean squared error of the pixels."""
        x0 = one_view(x0, draws, self.how)
        config = self.encoder.config
        spread = self.spread(embedding(self.encoder, x0)).view(len(x0), config.tokens, config.dim)  # (N, T, D)
        return F.mse_loss(self.decoder(self.decoder.enter(spread)), patchify(x0, config.patch_size))

    def features(self) -> Mapping[str, Features]:
        """The embedding."""
        return encoder_features(self.encoder)

    def kept(self) -> nn.Module:
        """The encoder."""
        return self.encoder


def one_view(x0: Tensor, draws: Draws, how: Family | None) -> Tensor:
    """A crop of each image, mirrored or turned, colours as they are: what MAE is trained on. `how` None: the image itself."""
    return x0 if how is None else resample(x0, draws.uniform("views", 6), how)


def mae(images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None) -> Trained:
    """MAE with a quarter of the patches kept. They are about half as large as the others': of 16 it would see 4.

    The head, which its loss does not reach, is as small as can be.
    """
    head = {"pool": "mean", "embed_dim": 1}
    own = {**head, "patch_size": patch_side(images, 8), "mask_ratio": 0.75, "decoder_depth": 1, "decoder_dim": 64}
    given = read("mae", setting, {**SHARED, **own})
    if given.get("encoder", "vit") != "vit":
        raise ValueError(f"mae cannot leave patches out of encoder {given['encoder']!r}: use vit")
    return train(lambda: MAE(make_encoder(images, given, seed), given), images, budget=budget, seed=seed, setting=given, look=look)


def autoencoder(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """A plain autoencoder whose bottleneck is the embedding; no noise, no t."""
    own = {"augment": False, "decoder_depth": NETWORK["depth"], "decoder_dim": NETWORK["dim"]}
    given = read("autoencoder", setting, {**SHARED, **own})
    return train(
        lambda: Autoencoder(make_encoder(images, given, seed), given), images, budget=budget, seed=seed, setting=given, look=look
    )
