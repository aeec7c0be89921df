"""VICReg's variance and covariance terms on v_t (arXiv 2105.04906, section 4.1): a hybrid of DiER and a joint-embedding method.

Each number of v_t should vary over the batch by a standard deviation of 1 at least, and no two of them together. That is a loss of
a batch, not of an image: halves of a batch have other variances. So it is taken over the global batch, whatever the number of
processes and micro-batches. As it depends on v_t alone, its gradient there is computed once, from everybody's v_t, and an image's
part of that is added to what its v_t gets from the denoiser: the gradients of one backward pass over all, but for rounding.

Images of a batch are at different t. What of v_t varies with t alone counts as variance too, so the term is weaker than VICReg's.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks import unrounded
from ..dier import DiER
from .distributed import Processes
from .options import TrainConfig
from .precision import autocast

EPSILON = 1e-4
"""Added to a variance before its root is taken, whose slope is infinite at 0."""
COVARIANCE = 2 / 25
"""What covariances count beside variances. VICReg weighs the mean over two views by 25 for these, and the sum by 1 for those."""

VGradient = Callable[[Tensor], Tensor]
"""From v_t (n, E) of a micro-batch to what is added to its gradient, (n, E)."""


def variance_covariance(v: Tensor) -> Tensor:
    """Of embeddings (N, E), N at least 2: mean over the numbers of max(0, 1 - deviation), and COVARIANCE times the sum of all
    squared covariances of two numbers over E; 0 or more."""
    n, dim = v.shape
    centred = v - v.mean(dim=0)
    covariance = centred.T @ centred / (n - 1)  # (E, E)
    variance = covariance.diagonal()  # (E,)
    together = (covariance.square().sum() - variance.square().sum()) / dim
    return F.relu(1 - (variance + EPSILON).sqrt()).mean() + COVARIANCE * together


def v_gradients(
    config: TrainConfig, processes: Processes, model: DiER, pieces: Sequence[Mapping[str, Tensor]]
) -> Sequence[VGradient | None]:
    """For each micro-batch of this process's share, by `DiER.forward`'s names, what its v_t are given; None = nothing.

    All processes must have as many micro-batches. A single one has all v_t of its share when it needs them. Of several each needs
    the others', so all are encoded beforehand, which costs a forward pass of the encoder.
    """
    if not config.variance_covariance:
        return [None] * len(pieces)

    def gradient(v: Tensor) -> Tensor:
        return gradient_of_share(v, config.variance_covariance, config.batch_size, processes)

    if len(pieces) == 1:
        return [gradient]
    v = []
    for piece in pieces:
        with torch.no_grad(), autocast(config.precision, piece["x0"].device):
            v.append(model.encode(piece.get("encoder_view", piece["x0"]), piece["t"], piece.get("ids_keep")))
    parts = torch.split(gradient(torch.cat(v)), [len(part) for part in v])
    return [_known(part) for part in parts]


def gradient_of_share(v: Tensor, weight: float, batch_size: int, processes: Processes) -> Tensor:
    """The gradient of the whole batch's term in v (n, E), which are those of this process's share of it.

    Times the number of processes, as gradients are averaged over them.
    """
    share = processes.share(batch_size)
    whole = v.new_zeros(batch_size, v.shape[1])
    whole[share] = v
    whole = processes.total(whole).requires_grad_()  # zeros but for each one's own: nothing is rounded
    with torch.enable_grad(), unrounded(whole):
        (gradient,) = torch.autograd.grad(weight * variance_covariance(whole), whole)
    return gradient[share] * processes.count


def _known(gradient: Tensor) -> VGradient:
    return lambda _: gradient
