"""VICReg's variance and covariance terms on v_t (arXiv 2105.04906, section 4.1): a hybrid of DiER and a joint-embedding method.

Each number of v_t should vary over the batch by a standard deviation of 1 at least, and no two of them together. That is a loss of
a batch, not of an image: halves of a batch have other variances. So it is taken over the global batch, whatever the number of
processes and micro-batches. As it depends on v_t alone, its gradient there is computed once, from everybody's v_t, and an image's
part of that is added to what its v_t gets from the denoiser: the gradients of one backward pass over all, but for rounding.

Images of a batch are at different t. What of v_t varies with t alone counts as variance too, so the term is weaker than VICReg's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks import unrounded
from .distributed import Processes

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


@dataclass(frozen=True)
class VarianceCovariance:
    """The term by its weight, of batches of `batch_size` images over `processes`."""

    weight: float
    batch_size: int
    processes: Processes

    def of_pieces(
        self, pieces: Sequence[Mapping[str, Tensor]], encode: Callable[[Mapping[str, Tensor]], Tensor]
    ) -> Sequence[VGradient]:
        """For each micro-batch of this process's share what its v_t is given. All processes must have as many.

        Of several, `encode` gives v_t (n, E) of each beforehand: a forward pass of the encoder more. A single one has them all.
        """
        if len(pieces) == 1:
            return [self.gradient]
        v = [encode(piece) for piece in pieces]
        parts = torch.split(self.gradient(torch.cat(v)), [len(part) for part in v])
        return [_known(part) for part in parts]

    def gradient(self, v: Tensor) -> Tensor:
        """The gradient of the whole batch's term in v (n, E), which are those of this process's share.

        Times the number of processes, as gradients are averaged over them.
        """
        share = self.processes.share(self.batch_size)
        whole = v.new_zeros(self.batch_size, v.shape[1])
        whole[share] = v
        whole = self.processes.total(whole).requires_grad_()  # zeros but for each one's own: nothing is rounded
        with torch.enable_grad(), unrounded(whole):
            (gradient,) = torch.autograd.grad(self.weight * variance_covariance(whole), whole)
        return gradient[share] * self.processes.count


def _known(gradient: Tensor) -> VGradient:
    return lambda _: gradient
