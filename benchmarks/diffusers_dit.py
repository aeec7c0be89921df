"""Our training step's rival: encoder and denoiser built from diffusers' DiTTransformer2DModel (pip install dier[bench])."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from model.training.options import ema_decay, learning_rate
from model.training.trainer import Trainer

if TYPE_CHECKING:
    from model.config import ModelConfig


def _dit(config: ModelConfig, out_channels: int, condition: nn.Module | None) -> DiTTransformer2DModel:
    dit = DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.dim // config.heads,
        in_channels=config.channels,
        out_channels=out_channels,
        num_layers=config.depth,
        sample_size=config.image_height,
        patch_size=config.patch_size,
        norm_eps=1e-6,
    )
    for block in dit.transformer_blocks:
        # a class label joins the timestep here through a table; the rival's encoder has no label, its denoiser gets v_t instead
        block.norm1.emb.class_embedder = condition or _Nothing(config.dim)
    return dit


class _Nothing(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        return self.zero


class Peer(nn.Module):
    """Depth, width, heads, patch and embedding as ours; v_t is the mean of the encoder's output tokens, c = t_emb + Linear(v_t)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _dit(config, config.embed_dim // config.patch_size**2, None)
        self.denoiser = _dit(config, config.channels, nn.Linear(config.embed_dim, config.dim))
        for block in (*self.encoder.transformer_blocks, *self.denoiser.transformer_blocks):
            linear = block.norm1.linear  # its zeros would leave the whole network without gradients: the same work, on zeros
            nn.init.normal_(linear.weight, std=0.02)

    def forward(self, x_t: Tensor, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The mean squared error of the predicted noise."""
        n, patch = len(x0), self.config.patch_size
        tokens = self.encoder(x0, timestep=t, class_labels=t, return_dict=False)[0]  # (N, E / P^2, H, W)
        grid = tokens.view(n, -1, tokens.shape[2] // patch, patch, tokens.shape[3] // patch, patch)
        v = F.layer_norm(grid.mean(dim=(2, 4)).flatten(1), (self.config.embed_dim,))  # (N, E)
        predicted = self.denoiser(x_t, timestep=t, class_labels=v, return_dict=False)[0]
        return F.mse_loss(predicted, noise)


class PeerTrainer:
    """A training step of the rival, with our own trainer's batches, clipping, fused AdamW and EMA."""

    def __init__(self, ours: Trainer) -> None:
        self.ours, self.step = ours, 0
        self.model = Peer(ours.model_config)
        self.parameters = list(self.model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, weight_decay=0.0, fused=True)

    def _train_step(self) -> None:
        x0, t, noise = self.ours.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.ours.config, self.step)
        a = self.ours.model.alpha_bar[t].view(-1, 1, 1, 1)
        self.optimizer.zero_grad(set_to_none=True)
        self.model(a.sqrt() * x0 + (1 - a).sqrt() * noise, x0, t, noise).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.ours.config.grad_clip)
        self.optimizer.step()
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1 - ema_decay(self.ours.config, self.step))
