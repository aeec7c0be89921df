"""What the numbers say, in sentences: where the peak over t is, whether DiER beats each baseline, what looks wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.common.formatting import METRIC_NAMES, gain, measure
from components.probing.baselines import BASELINES, baseline_of, label
from components.probing.classifier import Labels
from components.probing.metrics import Estimate
from components.probing.sweep import Scored
from model.config import NUM_TIMESTEPS

NO_PEAK = (
    "To tell whether there is one: more val images (data.val_fraction) narrow the interval; more timesteps (embed.timesteps) or a "
    "longer training (train.steps) may bring it out; with model.encoder_time false there is none."
)
"""What to change where the curve over t is flat."""
PLATEAU = (
    "Where the image is predicted (model.prediction x0), noisy timesteps count as much as others, and the curve need not fall "
    "there; under eps it does."
)
"""What to know where the curve falls towards one end alone."""
UNUSED = (
    "The denoiser does not use the embedding: at the end of training, giving each image another's v_t raised the loss at no t "
    "(train.min_gap). These are figures of an encoder that learnt nothing; lower train.lr and train again."
)
OF_A_VARIANT = (
    "Trained was {method}: wherever DiER is named here that variant is meant, and its figures are not those of DiER as its authors "
    "describe it (train.views, train.mask_ratio and train.variance_covariance)."
)


def peak(curve: Sequence[Scored], metric: str) -> dict[str, Any]:
    """Whether the curve over t has a peak: its t is chosen on one half of val, both ends are compared with it on the other.

    On the images that chose it the highest of several points would be flattered, and noise alone would make a peak. The difference
    to each end is paired over images. `t` is the one tested, which need not be the best on all of val.
    """
    ordered = sorted(curve, key=lambda one: one.candidate.t or 0)
    best = max(ordered, key=lambda one: one.val[metric].value)
    tried = max(ordered, key=lambda one: one.choosing_half)
    t, name = tried.candidate.t, METRIC_NAMES[metric]

    def verdict(kind: str, sentence: str) -> dict[str, Any]:
        return {"t": t, "kind": kind, "sentence": f"{sentence[0].upper()}{sentence[1:]}"}

    found = f"val {name} is highest at t = {best.candidate.t}, {measure(best.val[metric].row(), metric)}"
    if len(ordered) < 3:
        return verdict(
            "none", f"{found}; no curve to judge a peak by, with {len(ordered)} timestep(s): set more in embed.timesteps."
        )
    ends = [end for end in (ordered[0], ordered[-1]) if end is not tried]
    gains = {end.candidate.t: tried.testing_half.minus(end.testing_half) for end in ends}
    against = ", ".join(f"{gain(difference.row(), metric)} over t = {end}" for end, difference in gains.items())
    half = f"t = {t}, the best on one half of val, gains on the other half {against} (95 % intervals in brackets)"
    level = [f"t = {end}" for end, difference in gains.items() if not difference.low > 0]
    unclear = " and ".join(level)
    if len(ends) == 1 and not level:  # an end is highest: is it above what lies next to it?
        beside = ordered[1] if tried is ordered[0] else ordered[-2]
        if not tried.testing_half.minus(beside.testing_half).low > 0:
            level = [f"t = {beside.candidate.t}"]
    if len(level) == 1 and (len(ends) == 2 or not unclear):
        return verdict("plateau", f"a plateau over t: {found}; {half}; the gain over {level[0]} is within chance. {PLATEAU}")
    if unclear:
        return verdict("none", f"no clear peak over t: {found}; {half}; the gain over {unclear} is within chance. {NO_PEAK}")
    if len(ends) == 2:
        return verdict("interior", f"a peak inside the range of t: {found}; {half}.")
    cure = "train longer (train.steps)" if t in (0, NUM_TIMESTEPS - 1) else f"add timesteps beyond t = {t} to embed.timesteps"
    return verdict("edge", f"the highest point is an end of the range of t, not a peak inside it: {found}; {half}; {cure}.")


def comparisons(differences: Mapping[str, Estimate], metric: str) -> list[str]:
    """One sentence a baseline, from the paired difference on test (DiER minus baseline), and what must be added to them."""
    on = "test" if metric == "accuracy" else f"test by {METRIC_NAMES[metric]}"
    sentences = []
    for name, difference in differences.items():
        verb = "beats" if difference.low > 0 else "falls below" if difference.high < 0 else "cannot be told from"
        sentences.append(f"On {on} DiER {verb} {label(name)}: {gain(difference.row(), metric)}.")
    caveats = dict.fromkeys(BASELINES[name].caveat for name in map(baseline_of, differences) if name in BASELINES)
    return sentences + [caveat for caveat in caveats if caveat]


def sampled(fitted: int, images: int) -> list[str]:
    """What must be said where the probes were fitted on fewer training images than there are."""
    if fitted == images:
        return []
    return [f"The probes were fitted on a random sample of {fitted:,} of {images:,} training images (probe.train_limit)."]


def chance(labels: Labels, metric: str) -> float:
    """What naming the commonest class of labels (N,) would score, or for several labels, or by AUC, a guess."""
    if metric == "auc" or labels.ndim == 2:
        return 0.5
    counts = np.unique(labels, return_counts=True)[1]
    return float(counts.max() / counts.sum()) if metric == "accuracy" else 1 / len(counts)


def warnings(best: Mapping[str, Scored], metric: str, guess: float) -> list[str]:
    """Signs that something went wrong, each with what to change; `guess` is what chance would score."""
    dier = best["dier"].val[metric].value
    found = []
    rivals = {name: one.val[metric].value for name, one in best.items() if name in ("pixels", "untrained")}
    if rivals and dier < min(rivals.values()):
        found.append(
            "Poor at every t: on val no timestep reaches raw pixels or the untrained encoder; the encoder is too small, unused or "
            "undertrained: try model.pool grid or flat, a larger model.embed_dim or model.size, or more train.steps."
        )
    if dier < guess + 0.02:
        found.append("Near chance at every t: the encoder looks collapsed; lower train.lr and train again.")
    unfinished = [name for name, one in best.items() if not one.probe.converged]
    if unfinished:
        found.append(f"The chosen probe of {', '.join(map(label, unfinished))} stopped at probe.max_iter: raise it.")
    return found
