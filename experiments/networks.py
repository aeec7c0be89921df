"""The networks that the contest's methods share, at one size: DiER's own encoder, which does not look at t, and how it is read."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.contestant import Features, Setting
from experiments.features import batched, pooled
from model.blocks import Block, start_as_vit
from model.config import ModelConfig
from model.dier import DiER
from model.encoder import Encoder
from model.images import Images, to_tensor
from model.training.trainer import WHITENED

GRID_TOKENS = 4
"""Patches down and across unless a setting says otherwise: 16 tokens."""
NETWORK: Mapping[str, Any] = {
    "depth": 3,
    "dim": 128,
    "heads": 4,
    "patch_size": None,
    "embed_dim": 512,
    "pool": "flat",
    "embed_norm": True,
}
"""What all encoders have unless a setting says otherwise: a ViT whose head reads 16 tokens side by side."""
MODEL_FIELDS = frozenset(field.name for field in fields(ModelConfig)) - {"image_height", "image_width", "channels", "init_seed"}
"""What of a network a setting may say."""


def read(method: str, setting: Setting, defaults: Setting) -> dict[str, Any]:
    """The defaults, changed by the setting, whose `family` every method takes.

    Where the defaults have a network, a setting may say all that ModelConfig has. Raises ValueError for what else has no default.
    """
    network = MODEL_FIELDS if "depth" in defaults else frozenset()
    if unknown := sorted(set(setting) - set(defaults) - network - {"family"}):
        raise ValueError(f"{method} knows no setting {unknown[0]!r}: use {', '.join(sorted(defaults))}")
    return {"family": "", **defaults, **setting}


def model_config(images: Images, setting: Setting, seed: int, **more: Any) -> ModelConfig:
    """The configuration for images (N, H, W, C): NETWORK, changed by `more`, then by what of a network the setting says."""
    _, height, width, channels = images.shape
    said = {name: value for name, value in setting.items() if name in MODEL_FIELDS and value is not None}
    given = {**NETWORK, "patch_size": patch_side(images), **more, **said}
    return ModelConfig(image_height=height, image_width=width, channels=channels, init_seed=seed, **given)


def patch_side(images: Images, across: int = GRID_TOKENS) -> int:
    """Pixels a side of patches that divide images (N, H, W, C), about `across` of them in a row."""
    height, width = images.shape[1:3]
    divisors = [side for side in range(1, height + 1) if height % side == 0 and width % side == 0]
    return min(divisors, key=lambda side: abs(math.log(height / side / across)))


def make_encoder(images: Images, setting: Setting, seed: int, **more: Any) -> Encoder:
    """DiER's encoder without t, with the weights that DiER of this seed would begin with, a ResNet's whitening included."""
    model = DiER(model_config(images, setting, seed, encoder_time=False, **more))
    if model.frozen():
        rows = np.linspace(0, len(images) - 1, min(len(images), WHITENED)).astype(np.int64)  # as the Trainer chooses them
        model.fit_frozen(to_tensor(images[rows]))
    return model.encoder


def blocks_without_t(depth: int, dim: int, heads: int) -> nn.ModuleList:
    """Plain ViT blocks: DiER's own, which are to be given a condition (1, dim) of zeros. Draws from the global generator."""
    blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    start_as_vit(nn.Identity(), blocks, std=0.0)
    return blocks


def embedding(encoder: Encoder, x: Tensor, t: int = 0) -> Tensor:
    """v (N, embed_dim) of images x (N, C, H, W) in [-1, 1]."""
    v: Tensor = encoder(x, torch.full((1,), t, device=x.device))
    return v


def tokens(encoder: Encoder, x: Tensor, ids_keep: Tensor | None = None, t: int = 0) -> Tensor:
    """The encoder's tokens before pooling and head, normalised: (N, K, dim), K = T where `ids_keep` (N, K) is None."""
    found: list[Tensor] = []
    with encoder.norm.register_forward_hook(lambda _module, _inputs, out: found.append(out)):
        encoder(x, torch.full((1,), t, device=x.device), ids_keep)
    return found[0]


def encoder_features(encoder: Encoder) -> dict[str, Features]:
    """`v`, and `tokens`: what lies before the head, averaged over 2 x 2 cells.

    A head serves the training's own end: cutting it off may gain much (arXiv 2206.13378).
    """
    return {"v": batched(lambda x: embedding(encoder, x)), "tokens": tokens_at(encoder, 0)}


def tokens_at(encoder: Encoder, t: int) -> Features:
    """What lies before the head, averaged over 2 x 2 cells: (N, 4 D)."""
    return batched(lambda x: pooled(tokens(encoder, x, t=t), encoder.config.last_map)["grid"])


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(p.numel() for p in module.parameters())
