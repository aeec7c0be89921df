"""What the denoiser predicts, how often each t is drawn and how much it counts, and what a prediction costs that says nothing.

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
CAPPED = 20.0
"""Where `v_capped` caps it."""


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
    is hard to find and says little about the image, count for less than under an unweighted eps loss. `v_capped` weighs it by
    min(SNR + 1, 20), what an unweighted v loss does (arXiv 2202.00512, section 4) but for the cap: unlike with the SNR of an eps
    loss, coarse content at high noise counts. `auto` is that where x0 is predicted. For eps it would be a weight of thousands at
    high noise, where the noise is all there is to see.
    """
    if weighting == "auto":
        weighting = "v_capped" if prediction == "x0" else "uniform"
    if weighting == "uniform":
        return None
    snr = alpha_bar / (1 - alpha_bar)
    weight = snr.clamp(max=GAMMA) if weighting == "min_snr" else (snr + 1).clamp(max=CAPPED)
    return (weight / {"eps": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[prediction]).float()


def timestep_shares(alpha_bar: Tensor, *, mean: float | None = None, std: float = 1.0, fixed: int | None = None) -> Tensor:
    """How often each t is trained on, (NUM_TIMESTEPS,) float64 that add up to 1: all alike, unless told otherwise.

    With `mean` log-SNR is normal around it with spread `std` (nats), as EDM draws its noise levels (arXiv 2206.00364, section 5):
    a t's share is the density at its log-SNR times the width of log-SNR that it stands for. `fixed` is one t alone.
    alpha_bar (NUM_TIMESTEPS,).
    """
    count = len(alpha_bar)
    if fixed is not None:
        return torch.nn.functional.one_hot(torch.tensor(fixed), count).double()
    if mean is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    level = torch.logit(alpha_bar.double())
    width = -torch.gradient(level)[0]
    density = torch.exp(-0.5 * ((level - mean) / std) ** 2) * width
    return density / density.sum()


def trivial_loss(prediction: str, alpha_bar: Tensor, variance: float, shares: Tensor | None = None) -> float:
    """The unweighted loss of the best guess that does not look at the image; a collapsed network's.

    That guess is no noise for eps, the mean image for x0, what both imply for v. alpha_bar (NUM_TIMESTEPS,); `variance` is
    that of a pixel in [-1, 1] over images, on average; `shares` (NUM_TIMESTEPS,) says how often each t is drawn, None = all alike.
    """
    if prediction == "eps":
        return 1.0
    drawn = timestep_shares(alpha_bar) if shares is None else shares
    left = 0.0 if prediction == "x0" else (drawn * alpha_bar).sum().item()  # of v's noise, the rest being x0's
    return left + (1 - left) * variance
