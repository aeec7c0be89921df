"""The denoiser: a Diffusion Transformer conditioned on v_t through adaLN (DiT, arXiv 2212.09748).

How v_t reaches it decides how much of v_t gets a gradient: the rank of the map is that of v_t that is used.

- `model.condition` shared: v_t joins t, c = t_emb + Linear(v_t), so at most as many directions of v_t as the denoiser is wide.
- block: t and v_t modulate each block apart, v_t by a matrix of the block's own (SODA, arXiv 2311.17901).
- `model.condition_dim` r: v_t first goes through r numbers, for either.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import modulation
from .blocks import Block, TimestepEmbedding, modulate, patchify, position_code, start_as_vit, unpatchify, unrounded
from .config import ModelConfig


class Denoiser(nn.Module):
    """Predicts the noise in x_t (or `v`, or x0) from x_t, t and the embedding v_t."""

    position: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        depth, dim, heads = config.denoiser
        self.patches = nn.Linear(config.patch_dim, dim)
        self.register_buffer("position", position_code(config.grid, dim), persistent=False)
        self.timestep = TimestepEmbedding(dim)
        self.by_block, rank = config.condition == "block", config.condition_dim
        self.narrow = None if rank is None else nn.Linear(config.embed_dim, rank, bias=False)
        if not self.by_block:
            self.embedding = nn.Linear(rank or config.embed_dim, dim)
        v_dim = (rank or config.embed_dim) if self.by_block else 0
        self.shared = modulation.of_network(config.modulation, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, config.modulation, config.modulation_rank, v_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, config.patch_dim)

    def initialise(self) -> None:
        """DiT's zeros would cut v_t off: its path to the loss runs through the modulations and the last layer.

        Gates at 1 and small modulation weights let the encoder's gradient flow from the first step.
        """
        start_as_vit(self.shared, self.blocks, std=0.02)
        nn.init.normal_(self.modulation.weight, std=0.02)
        nn.init.zeros_(self.modulation.bias)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        if self.narrow is not None:
            # orthonormal rows: of a v_t of unit spread it gives numbers of unit spread, whatever the rank
            nn.init.orthogonal_(self.narrow.weight)

    def conditions(self) -> Tensor:
        """All linear maps that v_t goes through, (rows, embed_dim): what is in their null space does not reach the denoiser."""
        layers = [block.embedding for block in self.blocks] if self.by_block else [self.embedding]
        rows = torch.cat([layer.weight for layer in layers if isinstance(layer, nn.Linear)])
        return rows if self.narrow is None else rows @ self.narrow.weight

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
            v = v.to(self.modulation.weight.dtype)
            if self.narrow is not None:
                v = self.narrow(v)  # (N, rank)
            joined = 0.0 if self.by_block else self.embedding(v)  # (N, D)
        c = F.silu(self.timestep(t) + joined)  # (N, D)
        given = (self.shared(c), v) if self.by_block else (self.shared(c),)
        for block in self.blocks:
            x = block(x, *given)
            if means is not None:
                means.append(x.mean(dim=1))
        return x, c
