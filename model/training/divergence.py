"""The ways in which training goes wrong, each detected and named with its cure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from ..errors import PermanentTrainingError

Curve = Sequence[Mapping[str, float]]
"""Points of the curve, the oldest first."""

# Predicting no noise at all costs exactly 1 under L_simple, since the noise has unit variance; for what else may be predicted see
# model.objective.trivial_loss.
TRIVIAL_LOSS = 1.0
FALLEN = 0.5
"""A loss below this share of the trivial one has been learnt: where it goes back to that, training collapsed."""
PATIENCE = 300
"""Steps that a sign must last to count; a spike passes. Before so many after warm-up the loss may not have fallen yet."""
SLOW_PATIENCE = 3000
"""The latter where not the noise is predicted: copying x_t finds most of its noise, so that loss falls at once; others do not."""
FADED = 0.25
"""An encoder's gradient norm below this share of what it was before is a reason to measure whether v_t still does anything."""
NO_EFFECT = 1.0003
"""Shuffling a dead v_t leaves the loss as it was; even before warm-up ends a live one raises it by more than this, at some t."""


def check_finite(point: Mapping[str, float]) -> None:
    """Check one point of the curve, or what there is before a checkpoint. Raises PermanentTrainingError on a non-finite loss."""
    if not all(math.isfinite(point[name]) for name in ("loss", "grad_norm_encoder", "grad_norm_denoiser")):
        raise PermanentTrainingError(
            f"non-finite loss or gradient by step {point['step']:.0f} (train.lr {point['lr']:g}): the learning rate is too high "
            "for this model; lower train.lr, lengthen train.warmup_steps, or use train.precision float32"
        )


def check_point(point: Mapping[str, float], steps_since_warmup: int, before: Curve = (), trivial: float = TRIVIAL_LOSS) -> None:
    """Check one point of the curve and those before it. Raises PermanentTrainingError on a non-finite loss or on collapse.

    `trivial` is the loss of a guess that does not look at the image.
    """
    check_finite(point)
    step, lr = int(point["step"]), point["lr"]
    norms = point["grad_norm_encoder"], point["grad_norm_denoiser"]
    earlier, recent = _split([*before, point])
    if not recent:
        return
    fell = [past for past in earlier if past["loss"] < FALLEN * trivial]
    if not fell and steps_since_warmup < PATIENCE:
        return
    if all(past["grad_norm_encoder"] + past["grad_norm_denoiser"] < 1e-7 for past in recent):
        raise PermanentTrainingError(
            f"gradients collapsed by step {step}: norms {norms[0]:.1e} (encoder) and {norms[1]:.1e} (denoiser) at train.lr {lr:g}; "
            "lower train.lr (the paper saw this above 1e-4 on large sets)"
        )
    if not fell and trivial != TRIVIAL_LOSS and steps_since_warmup < SLOW_PATIENCE:
        return
    if all(past["loss"] > 0.9 * trivial for past in recent):
        guess = "no noise (1.0)" if trivial == TRIVIAL_LOSS else f"the same for every image ({trivial:.3f})"
        raise PermanentTrainingError(
            f"collapsed: by step {step} the loss {point['loss']:.3f} is {_how(fell)} that of predicting {guess}, the "
            f"encoder's gradient norm is {norms[0]:.1e}, at train.lr {lr:g}; lower train.lr or lengthen train.warmup_steps"
        )


def encoder_faded(curve: Curve) -> bool:
    """Has the encoder's gradient norm fallen to a small share of what it was (medians: it spikes)? Measure the gap then.

    It is no failure by itself: a healthy one falls too while the loss does.
    """
    parts = _split(curve)
    if not all(parts):
        return False
    earlier, recent = (median(point["grad_norm_encoder"] for point in part) for part in parts)
    return recent < FADED * earlier


def encoder_is_dead(ratios: Iterable[float]) -> bool:
    """Of the losses with v_t shuffled over those with v_t, at several t: is v_t without any effect at all of them?"""
    return max(ratios) < NO_EFFECT


def unused_encoder(gap: Sequence[Mapping[str, float]], smallest: float, curve: Curve = ()) -> str | None:
    """One line where v_t is not used: shuffling it raises the loss by less than a factor `smallest` at every t. None where it is.

    The curve tells the two causes apart: an encoder that collapsed has lost its gradient, one that is late still has it.
    """
    best = max(gap, key=lambda row: row["ratio"])
    if best["ratio"] >= smallest:
        return None
    cure = "train longer (train.steps), raise train.lr or model.embed_dim"
    if encoder_faded(curve) and encoder_is_dead(row["ratio"] for row in gap):
        norms = [point["grad_norm_encoder"] for point in curve]
        cure = f"its gradient norm fell from {max(norms):.1e} to {norms[-1]:.1e}: lower train.lr or lengthen train.warmup_steps"
    return (
        f"dead encoder: shuffling v_t raises the loss at most {best['ratio']:.3f} times (at t = {best['t']:.0f}), less than "
        f"train.min_gap {smallest:g}: the denoiser ignores it; {cure}, or set train.min_gap to 0 to have no such check"
    )


def _split(curve: Curve) -> tuple[Curve, Curve]:
    """The points before the last PATIENCE steps, and those of them; of the latter none while they do not span as much.

    A point stands for the steps since the one before.
    """
    if not curve or curve[-1]["step"] < PATIENCE:
        return curve, ()
    begin = next(i for i, point in enumerate(curve) if point["step"] > curve[-1]["step"] - PATIENCE)
    return curve[:begin], curve[begin:]


def _how(fell: Curve) -> str:
    if not fell:
        return "still"
    lowest = min(fell, key=lambda past: past["loss"])
    return f"back from {lowest['loss']:.3f} (step {lowest['step']:.0f}) at or above"
