"""The encoder: clean image and timestep to the embedding v_t."""

import torch.nn.functional as F
from torch import Tensor, nn

from . import modulation, pooling
from .blocks import Block, TimestepEmbedding, patchify, position_code, start_as_vit, unrounded
from .config import ModelConfig
from .resnet import ResNet
from .stems import ConvStem, patch_mask


class Encoder(nn.Module):
    """A vision transformer conditioned on t by adaLN, with a linear head over its pooled tokens (DiER, arXiv 2505.05732).

    With `model.encoder` resnet the tokens are the pixels of a ResNet's last map, and t joins by FiLM.
    """

    position: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.encoder == "resnet":
            self.resnet = ResNet(config)
            self.timestep = TimestepEmbedding(config.dim)
        else:
            self.patches = ConvStem(config) if config.stem == "conv" else nn.Linear(config.patch_dim, config.dim)
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
        """Each block starts as a plain ViT block, or ResNet block, that does not yet look at t."""
        if self.config.encoder == "resnet":
            self.resnet.initialise()
        else:
            if isinstance(self.patches, ConvStem):
                self.patches.initialise()
            start_as_vit(self.shared, self.blocks, std=0.0)

    def forward(self, x0: Tensor, t: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """x0 (N, C, H, W) in [-1, 1], t (N,) int64 in [0, NUM_TIMESTEPS), or (1,) for one t for all; gives v_t (N, embed_dim).

        Of the T patches only `ids_keep` (N, K), distinct indices in [0, T), are seen; None = all. A ViT has no tokens of the
        others, a ResNet has nothing in their places.
        """
        # the ablation sees the same t for every image, so that the two networks have equal size
        c = F.silu(self.timestep(t if self.config.encoder_time else t * 0))  # (N, D) or (1, D)
        if self.config.encoder == "resnet":
            x, ids_keep = self.resnet(x0, c, ids_keep), None  # all places of its map are there
        else:
            x = self._vit(x0, c, ids_keep)
        with unrounded(x):  # it costs one row an image, or one product beside the blocks' many
            v = self.head(self.pool(self.norm(x.to(self.head.weight.dtype)), ids_keep))  # (N, E)
            return F.layer_norm(v, v.shape[1:]) if self.config.embed_norm else v

    def _vit(self, x0: Tensor, c: Tensor, ids_keep: Tensor | None) -> Tensor:
        """The last block's tokens (N, T, D), or of `ids_keep` (N, K, D)."""
        x: Tensor
        if self.config.stem == "patch":
            x = self.patches(patchify(x0, self.config.patch_size)) + self.position  # (N, T, D)
        else:  # its convolutions look into the next patch
            x = self.patches(x0 if ids_keep is None else x0 * patch_mask(ids_keep, self.config)) + self.position
        if ids_keep is not None:
            x = x.gather(1, ids_keep[:, :, None].expand(-1, -1, x.shape[2]))  # (N, K, D)
        c = self.shared(c)
        for block in self.blocks:
            x = block(x, c)
        return x
