"""The encoder: clean image and timestep to the embedding v_t."""

import torch.nn.functional as F
from torch import Tensor, nn

from . import modulation, pooling
from .blocks import Block, TimestepEmbedding, patchify, position_code, start_as_vit, unrounded
from .config import ModelConfig


class Encoder(nn.Module):
    """A vision transformer conditioned on t by adaLN, with a linear head over its pooled tokens (DiER, arXiv 2505.05732)."""

    position: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Linear(config.patch_dim, config.dim)
        self.register_buffer("position", position_code(config.grid, config.dim), persistent=False)
        self.timestep = TimestepEmbedding(config.dim)
        self.shared = modulation.of_network(config.modulation, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.modulation, config.modulation_rank) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.pool, numbers = pooling.make(config)
        self.head = nn.Linear(numbers, config.embed_dim)

    def initialise(self) -> None:
        """Each block starts as a plain ViT block that does not yet look at t."""
        start_as_vit(self.shared, self.blocks, std=0.0)

    def forward(self, x0: Tensor, t: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """x0 (N, C, H, W) in [-1, 1], t (N,) int64 in [0, NUM_TIMESTEPS), or (1,) for one t for all; gives v_t (N, embed_dim).

        Of the T tokens only `ids_keep` (N, K), distinct indices in [0, T), go through the network; None = all.
        """
        x = self.patches(patchify(x0, self.config.patch_size)) + self.position  # (N, T, D)
        if ids_keep is not None:
            x = x.gather(1, ids_keep[:, :, None].expand(-1, -1, x.shape[2]))  # (N, K, D)
        # the ablation sees the same t for every image, so that the two networks have equal size
        c = F.silu(self.timestep(t if self.config.encoder_time else t * 0))  # (N, D) or (1, D)
        c = self.shared(c)
        for block in self.blocks:
            x = block(x, c)
        with unrounded(x):  # it costs one row an image, or one product beside the blocks' many
            v = self.head(self.pool(self.norm(x.to(self.head.weight.dtype)), ids_keep))  # (N, E)
            return F.layer_norm(v, v.shape[1:]) if self.config.embed_norm else v
