"""DDAE: a diffusion model without an encoder, whose own blocks are the features (arXiv 2303.09769).

It gets the whole budget: as many blocks as DiER's two networks together, averaged weights, and every block at every small t,
averaged over all tokens or over 2 x 2 cells. Smaller patches are for the tuning to choose: halved, a step takes four times as long.
"""

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.contestant import Budget, Features, Floats, Labels, Look, Setting, Trained
from experiments.features import BATCH, REMEMBERED, Recent, pooled
from experiments.networks import NETWORK, model_config, patch_side, read
from experiments.training import RECIPE, Learner, train
from experiments.views import family
from model.config import NUM_TIMESTEPS
from model.dier import DiER
from model.images import Images, to_tensor
from model.objective import choose_prediction, loss_weight, timestep_shares
from model.rng import Draws, generator
from model.schedule import add_noise, alpha_bars

TIMESTEPS = (0, 5, 10, 20, 50, 100)
PASSES = 2
"""Whose layers are remembered: there are two features a block, each asked of train and of val in turn, and a pass draws its noise
image by image. Those of all t would not fit in memory."""


class DDAE(Learner):
    """DiER's denoiser, given a v of zeros."""

    def __init__(self, images: Images, given: Setting, seed: int) -> None:
        super().__init__()
        self.model = DiER(model_config(images, given, seed, embed_dim=1))
        self.model.encoder = nn.Identity()  # type: ignore[assignment]
        config = self.model.config
        alpha_bar = alpha_bars(config.schedule)
        weight = loss_weight(given["loss_weight"], config.prediction, alpha_bar)
        mean = given["log_snr_mean"] if given["timesteps"] == "log_snr" else None
        shares = timestep_shares(alpha_bar, mean=mean, std=given["log_snr_std"])
        self.register_buffer("until", shares.cumsum(0), persistent=False)
        self.register_buffer("weight", torch.ones(NUM_TIMESTEPS) if weight is None else weight, persistent=False)
        self.read_at, self.seed = tuple(given["read_at"]), seed
        self.flip = given["augment"] and family(given["family"]).flip

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """L_simple, or what else is predicted and how it is weighed; images are mirrored where that leaves them what they are."""
        if self.flip:
            x0 = torch.where(draws.uniform("flip", 1, 1, 1) < 0.5, x0.flip(3), x0)
        t = torch.searchsorted(self.get_buffer("until"), draws.uniform("t").double(), right=True).clamp(max=NUM_TIMESTEPS - 1)
        noise = draws.normal("noise", *x0.shape[1:])
        losses = self.model.denoising_loss(x0, t, noise, x0.new_zeros(len(x0), 1))
        loss: Tensor = (losses * self.get_buffer("weight")[t]).mean()
        return loss

    def features(self) -> Mapping[str, Features]:
        """Each block's output at each t."""
        layers = Layers(self.model, self.seed)
        names = [
            (t, block, way) for t in self.read_at for block in range(self.model.config.denoiser.depth) for way in ("mean", "grid")
        ]
        return {f"block {block}, t={t}, {way}": partial(layers, t, f"block {block}, {way}") for t, block, way in names}

    def kept(self) -> nn.Module:
        """All of it."""
        return self.model


class Layers:
    """The blocks' outputs on x_t; those of the last passes are remembered, as all come in one."""

    def __init__(self, model: DiER, seed: int) -> None:
        self._model, self._seed = model, seed
        self._recent = Recent[dict[str, Floats]](PASSES)

    def __call__(self, t: int, name: str, images: Images) -> Floats:
        """One of them, (N, D) or (N, 4 D)."""
        if len(images) > REMEMBERED:
            return self._computed(images, t, {name})[name]
        return self._recent.get(images, t, lambda: self._computed(images, t, None))[name].copy()

    @torch.inference_mode()
    def _computed(self, images: Images, t: int, wanted: set[str] | None) -> dict[str, Floats]:
        found: dict[str, list[Floats]] = {}
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            for name, value in self._batch(to_tensor(part), torch.from_numpy(self._noise(part)), t).items():
                if wanted is None or name in wanted:
                    found.setdefault(name, []).append(value.float().numpy())
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _batch(self, x: Tensor, noise: Tensor, t: int) -> dict[str, Tensor]:
        denoiser, times, outputs = self._model.denoiser, torch.full((len(x),), t), list[Tensor]()
        hooks = [block.register_forward_hook(lambda _module, _inputs, out: outputs.append(out)) for block in denoiser.blocks]
        try:
            denoiser(add_noise(x, noise, self._model.alpha_bar[times]), times, x.new_zeros(len(x), 1))
        finally:
            for hook in hooks:
                hook.remove()
        grid = self._model.config.grid
        return {f"block {number}, {way}": value for number, out in enumerate(outputs) for way, value in pooled(out, grid).items()}

    def _noise(self, images: Images) -> Floats:
        """Noise (N, C, H, W) of the images themselves, so that it does not depend on the others that come with one."""
        shape = images.shape[3], *images.shape[1:3]
        drawn = [torch.randn(shape, generator=generator(self._seed, zlib.crc32(image.tobytes()))) for image in images]
        return torch.stack(drawn).numpy()


def ddae(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """An unconditional diffusion transformer: twice the depth of an encoder.

    It predicts the noise where that fits through it, else the clean image, as `model.prediction` auto does.
    """
    network: dict[str, Any] = {**NETWORK, "depth": 2 * NETWORK["depth"], "patch_size": patch_side(images)}
    objective = {"prediction": "auto", "schedule": "linear", "loss_weight": "uniform", "augment": True, "read_at": TIMESTEPS}
    drawn = {"timesteps": "uniform", "log_snr_mean": -0.5, "log_snr_std": 1.5}  # as TrainConfig has them
    del network["embed_dim"], network["pool"], network["embed_norm"]
    given = read("ddae", setting, {**RECIPE, "weight_decay": 0.0, "beta2": 0.999, **network, **objective, **drawn})
    given["prediction"] = choose_prediction(given["prediction"], images.shape[3] * given["patch_size"] ** 2, given["dim"])
    return train(lambda: DDAE(images, given, seed), images, budget=budget, seed=seed, setting=given, look=look)
