"""DiER: encoder and denoiser, and the one loss that trains both (arXiv 2505.05732)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .denoiser import Denoiser
from .encoder import Encoder
from .objective import target
from .rng import generator
from .schedule import add_noise, alpha_bar


class DiER(nn.Module):
    """The two networks. Initial weights are a function of `config` alone, its `init_seed` included."""

    signal: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("signal", alpha_bar(config.schedule).float(), persistent=False)  # (T,)
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator, which stays as it is
            self.encoder = Encoder(config)
            self.denoiser = Denoiser(config)
            torch.default_generator.manual_seed(generator(config.init_seed, "initialisation").initial_seed())
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.encoder.initialise()
        self.denoiser.initialise()

    def compile_blocks(self) -> None:
        """Let torch.compile fuse what stands between the matrix products; all blocks are alike, so one compilation serves all."""
        for block in (*self.encoder.blocks, *self.denoiser.blocks):
            block.compile(dynamic=False)

    def forward(
        self,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        seen: Tensor | None = None,
        kept: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """The loss of each image, L_simple = mean |eps - eps_theta(x_t, t, v_t)|^2 over its pixels (or of what else is predicted).

        x0 and noise (N, C, H, W), t (N,); gives (N,) float32. While training the encoder may see another view `seen` (N, C, H, W),
        of its tokens only those `kept` (N, K), and where `told` (N,) is 0 and not 1 the denoiser gets zeros in place of v_t.
        """
        v = self.encoder(x0 if seen is None else seen, t, kept)
        return self.denoising_loss(x0, t, noise, v if told is None else v * told[:, None])

    def denoising_loss(self, x0: Tensor, t: Tensor, noise: Tensor, v: Tensor) -> Tensor:
        """As `forward`, for given embeddings v (N, embed_dim), which need not be those of x0."""
        signal = self.signal[t]
        predicted = self.denoiser(add_noise(x0, noise, signal), t, v)
        wanted = target(self.config.prediction, x0, noise, signal)
        return F.mse_loss(predicted.float(), wanted, reduction="none").mean(dim=(1, 2, 3))
