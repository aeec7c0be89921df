"""The ways in which training goes wrong, each detected and named with its cure."""

import math
from collections.abc import Mapping, Sequence

from .errors import TrainingError

# Predicting no noise at all costs exactly 1 under L_simple, since the noise has unit variance.
TRIVIAL_LOSS = 1.0
PATIENCE = 300
"""Steps after warm-up before a loss at the trivial level counts as collapse."""


def check_finite(point: Mapping[str, float]) -> None:
    """Look at one point of the curve, or at what there is of it before a checkpoint. Raises TrainingError on a non-finite loss."""
    if not all(math.isfinite(point[name]) for name in ("loss", "grad_norm_encoder", "grad_norm_denoiser")):
        raise TrainingError(
            f"non-finite loss or gradient by step {point['step']:.0f} (train.lr {point['lr']:g}): the learning rate is too high "
            "for this model; lower train.lr, lengthen train.warmup_steps, or use train.precision float32"
        )


def check_point(point: Mapping[str, float], steps_since_warmup: int) -> None:
    """Look at one point of the curve. Raises TrainingError on a non-finite loss or on collapse."""
    check_finite(point)
    step, lr = int(point["step"]), point["lr"]
    norms = point["grad_norm_encoder"], point["grad_norm_denoiser"]
    if steps_since_warmup < PATIENCE:
        return
    if sum(norms) < 1e-7:
        raise TrainingError(
            f"gradients collapsed by step {step}: norms {norms[0]:.1e} (encoder) and {norms[1]:.1e} (denoiser) at train.lr {lr:g}; "
            "lower train.lr (the paper saw this above 1e-4 on large sets)"
        )
    if point["loss"] > 0.9 * TRIVIAL_LOSS:
        raise TrainingError(
            f"collapsed: by step {step} the loss {point['loss']:.3f} is still that of predicting no noise (1.0) "
            f"at train.lr {lr:g}; lower train.lr or lengthen train.warmup_steps"
        )


def check_encoder(gap: Sequence[Mapping[str, float]], smallest: float) -> None:
    """Is v_t used? Raises TrainingError when shuffling it raises the loss by less than a factor `smallest` at every t."""
    best = max(gap, key=lambda row: row["ratio"])
    if best["ratio"] < smallest:
        raise TrainingError(
            f"dead encoder: shuffling v_t raises the loss at most {best['ratio']:.3f} times (at t = {best['t']:.0f}), less than "
            f"train.min_gap {smallest:g}: the denoiser ignores it; train longer (train.steps), raise train.lr or model.embed_dim, "
            "or set train.min_gap to 0 to keep the model all the same"
        )
