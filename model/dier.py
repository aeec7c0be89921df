"""DiER: encoder and denoiser, and the one loss that trains both (arXiv 2505.05732)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block, Recomputed
from .config import ModelConfig
from .denoiser import Denoiser
from .encoder import Encoder
from .objective import target
from .rng import generator
from .schedule import add_noise, alpha_bars
from .stems import Whitening


class DiER(nn.Module):
    """The two networks. Initial weights are a function of `config` alone, its `init_seed` included."""

    alpha_bar: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("alpha_bar", alpha_bars(config.schedule).float(), persistent=False)  # (NUM_TIMESTEPS,)
        # Layers draw from the CPU's global generator, which is put back afterwards. torch.manual_seed would reseed CUDA's as well.
        with torch.random.fork_rng(devices=[]):
            self.encoder = Encoder(config)
            self.denoiser = Denoiser(config)
            torch.default_generator.manual_seed(generator(config.init_seed, "initialisation").initial_seed())
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.encoder.initialise()
        self.denoiser.initialise()

    def blocks(self) -> list[Block]:
        """The transformer blocks, which hold nearly all of the weights and of the work, but for those of a ResNet encoder."""
        return [block for block in self.modules() if isinstance(block, Block)]

    def compile_blocks(self, *, varying_tokens: bool = False) -> None:
        """Let torch.compile fuse what stands between the matrix products; all blocks are alike, so one compilation serves all.

        `varying_tokens`: one for all numbers of tokens too, as where the encoder sees some of them and the denoiser all.
        """
        for block in self.blocks():
            block.varying_tokens = varying_tokens
            block.compile(dynamic=False)  # but for what is marked

    def checkpoint_activations(self) -> None:
        """Compute each block's activations again in the backward pass instead of keeping them."""
        for module in self.modules():
            if isinstance(module, Recomputed):
                module.recompute = True

    def untrained(self) -> "DiER":
        """The very model that training began with, on the CPU: initial weights, and what is frozen as it is here."""
        fresh = DiER(self.config)
        fresh.load_state_dict(fresh.state_dict() | {name: p.detach().cpu() for name, p in self.frozen().items()})
        return fresh.eval()

    def frozen(self) -> dict[str, nn.Parameter]:
        """Weights by name that are computed from the training images before training, and stay: `encoder.resnet`'s whitening."""
        return {name: parameter for name, parameter in self.named_parameters() if not parameter.requires_grad}

    def fit_frozen(self, x: Tensor) -> None:
        """Compute what is frozen from images (N, C, H, W) in [-1, 1]."""
        for module in self.modules():
            if isinstance(module, Whitening):
                module.fit(x)

    def forward(
        self,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        encoder_view: Tensor | None = None,
        ids_keep: Tensor | None = None,
        condition_mask: Tensor | None = None,
        v_gradient: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The loss of each image, L_simple = mean |eps - eps_theta(x_t, t, v_t)|^2 over its pixels (or of what else is predicted).

        x0 (N, C, H, W) in [-1, 1], t (N,) int64 in [0, NUM_TIMESTEPS), noise (N, C, H, W) standard normal; gives (N,) float32.
        While training the encoder may be given another view of the images, `encoder_view` (N, C, H, W) in [-1, 1], and only the
        tokens `ids_keep` (N, K) of it; where `condition_mask` (N,) is 0 and not 1 the denoiser is given zeros in place of v_t.
        What `v_gradient` gives for v_t (N, embed_dim) is added to its gradient: that of another loss, which is not in this one.
        """
        v = self.encode(x0 if encoder_view is None else encoder_view, t, ids_keep)
        if v_gradient is not None:
            added = v_gradient(v.detach())
            v.register_hook(lambda gradient: gradient + added)  # type: ignore[no-untyped-call]
        return self.denoising_loss(x0, t, noise, v if condition_mask is None else v * condition_mask[:, None])

    def encode(self, x0: Tensor, t: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """The embeddings v_t (N, embed_dim), as `Encoder.forward`. Sharded weights are gathered for this as for `forward`."""
        v: Tensor = self.encoder(x0, t, ids_keep)
        return v

    def denoising_loss(self, x0: Tensor, t: Tensor, noise: Tensor, v: Tensor) -> Tensor:
        """As `forward`, for given embeddings v (N, embed_dim), which need not be those of x0."""
        alpha_bar = self.alpha_bar[t]  # (N,)
        predicted = self.denoiser(add_noise(x0, noise, alpha_bar), t, v)
        wanted = target(self.config.prediction, x0, noise, alpha_bar)
        return F.mse_loss(predicted.float(), wanted, reduction="none").mean(dim=(1, 2, 3))
