"""The denoiser: a Diffusion Transformer conditioned on v_t through adaLN (DiT, arXiv 2212.09748)."""

import torch.nn.functional as F
from torch import Tensor, nn

from . import modulation
from .blocks import Block, TimestepEmbedding, modulate, patchify, position_code, start_as_vit, unpatchify, unrounded
from .config import ModelConfig


class Denoiser(nn.Module):
    """Predicts the noise in x_t (or `v`, or x0) from x_t, t and the embedding v_t; the condition is c = t_emb + Linear(v_t)."""

    position: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Linear(config.patch_dim, config.dim)
        self.register_buffer("position", position_code(config.grid, config.dim), persistent=False)
        self.timestep = TimestepEmbedding(config.dim)
        self.embedding = nn.Linear(config.embed_dim, config.dim)
        self.shared = modulation.of_network(config.modulation, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.modulation, config.modulation_rank) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.patch_dim)

    def initialise(self) -> None:
        """DiT's zeros would cut v_t off: its path to the loss runs through the modulations and the last layer.

        Gates at 1 and small modulation weights let the encoder's gradient flow from the first step.
        """
        start_as_vit(self.shared, self.blocks, std=0.02)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """x_t (N, C, H, W), t (N,) int64 in [0, NUM_TIMESTEPS), v (N, embed_dim); gives the prediction (N, C, H, W)."""
        x, c = self._features(x_t, t, v, None)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=2)  # each (N, 1, D)
        patches = self.out(modulate(self.norm(x), shift, scale))  # (N, T, C * patch * patch)
        return unpatchify(patches, self.config.grid, self.config.patch_size)

    def layer_means(self, x_t: Tensor, t: Tensor, v: Tensor) -> list[Tensor]:
        """Each block's output averaged over the tokens, (N, D) each: the DDAE baseline (arXiv 2303.09769)."""
        means: list[Tensor] = []
        self._features(x_t, t, v, means)
        return means

    def _features(self, x_t: Tensor, t: Tensor, v: Tensor, means: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        x = self.patches(patchify(x_t, self.config.patch_size)) + self.position  # (N, T, D)
        with unrounded(v):
            given_v = self.embedding(v.to(self.embedding.weight.dtype))  # (N, D)
        c = F.silu(self.timestep(t) + given_v)  # (N, D)
        given = self.shared(c)
        for block in self.blocks:
            x = block(x, given)
            if means is not None:
                means.append(x.mean(dim=1))
        return x, c
