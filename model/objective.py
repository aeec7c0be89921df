"""What the denoiser predicts, how much each t counts, and what a prediction costs that says nothing.

The denoiser is asked for the noise (`eps`, DDPM, arXiv 2006.11239), for the clean image (`x0`), or for
`v` = sqrt(a) eps - sqrt(1 - a) x0 (arXiv 2202.00512, appendix D), where a is alpha_bar at t. An error e in x0
is one of sqrt(SNR) e in eps and of sqrt(SNR + 1) e in v, with SNR = a / (1 - a).

Noise fills every direction of a patch, images do not: a network that is narrower than a patch cannot carry the noise through
(JiT, arXiv 2511.13720), so there the clean image is the default.
"""

import torch
from torch import Tensor

from .config import ModelConfig
from .schedule import remove_noise

GAMMA = 5.0
"""Where min-SNR caps the weight on the error in x0; the authors' choice."""


def choose_prediction(wanted: str, patch_dim: int, dim: int) -> str:
    """auto | eps | v | x0 to one of the last three, for patches of `patch_dim` numbers and a network of width `dim`."""
    if wanted != "auto":
        return wanted
    return "x0" if patch_dim > dim else "eps"


def too_narrow(config: ModelConfig) -> str | None:
    """What is to be said where noise is asked of a network that is narrower than a patch; None = nothing."""
    width = config.denoiser.dim
    if config.prediction == "x0" or config.patch_dim <= width:
        return None
    return (
        f"model.prediction {config.prediction} with patches of {config.patch_dim} numbers and a width of {width}: noise does "
        "not fit through a network narrower than a patch; consider model.prediction x0, or a smaller model.patch_size"
    )


def target(prediction: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the denoiser should predict. x0 (N, C, H, W) in [-1, 1], noise (N, C, H, W), alpha_bar (N,); gives (N, C, H, W)."""
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return x0
    a = alpha_bar.view(-1, 1, 1, 1)
    return a.sqrt() * noise - (1 - a).sqrt() * x0


def clean(prediction: str, x_t: Tensor, predicted: Tensor, alpha_bar: Tensor) -> Tensor:
    """The estimate of x0 that a prediction implies, not clipped to [-1, 1]; x_t, predicted (N, C, H, W), alpha_bar (N,)."""
    if prediction == "eps":
        return remove_noise(x_t, predicted, alpha_bar)
    if prediction == "x0":
        return predicted
    a = alpha_bar.view(-1, 1, 1, 1)
    return a.sqrt() * x_t - (1 - a).sqrt() * predicted


def loss_weight(weighting: str, prediction: str, alpha_bar: Tensor) -> Tensor | None:
    """What the squared error at each t counts for, (NUM_TIMESTEPS,) float32 above 0; None = all alike. alpha_bar (NUM_TIMESTEPS,).

    `min_snr` weighs the error in x0 by min(SNR, 5) whatever is predicted (arXiv 2303.09556, section 3.4): the clean t, whose noise
    is hard to find and says little about the image, count for less than under an unweighted eps loss.
    """
    if weighting == "uniform":
        return None
    snr = alpha_bar / (1 - alpha_bar)
    return (snr.clamp(max=GAMMA) / {"eps": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[prediction]).float()


def trivial_loss(prediction: str, alpha_bar: Tensor, variance: float) -> float:
    """The unweighted loss, over all t alike, of the best guess that does not look at the image; a collapsed network's.

    That guess is no noise for eps, the mean image for x0, what both imply for v. alpha_bar (NUM_TIMESTEPS,); `variance` is
    that of a pixel in [-1, 1] over images, on average.
    """
    if prediction == "eps":
        return 1.0
    left = 0.0 if prediction == "x0" else alpha_bar.mean().item()  # of v's noise, the rest being x0's
    return left + (1 - left) * variance
