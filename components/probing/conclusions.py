"""What the numbers say, in sentences: where the peak over t is, whether DiER beats each baseline, what looks wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.probing.metrics import Bootstrap, Estimate
from components.probing.sweep import Scored
from model.config import NUM_TIMESTEPS

ONE_CLASS = (
    "The labels name a single class, so there is nothing to tell apart and no accuracy here means anything: "
    "t was not chosen, and the embeddings are untested. Label some images of each class to probe them."
)
NO_PEAK = (
    "To tell whether there is one: more val images (data.val_fraction) narrow the interval; more timesteps (embed.timesteps) or a "
    "longer training (train.steps) may bring it out; with model.encoder_time false there is none."
)
"""What to change where the curve over t is flat."""
NAMES = {"pixels": "raw pixels", "pca": "PCA of the pixels", "untrained": "the untrained encoder"}


def name_of(representation: str) -> str:
    """A representation's name as a person would say it."""
    return NAMES.get(representation, representation.replace("denoiser_block", "the denoiser's block "))


def peak(curve: Sequence[Scored], bootstrap: Bootstrap) -> dict[str, Any]:
    """Where val accuracy is highest over t, and whether both ends lie below it by more than chance.

    The difference to each end is paired over images. t was picked as the highest of several, which flatters it a little.
    """
    ordered = sorted(curve, key=lambda one: one.candidate.t or 0)
    best = max(ordered, key=lambda one: one.val["accuracy"].value)
    t = best.candidate.t

    def verdict(kind: str, sentence: str) -> dict[str, Any]:
        return {"t": t, "kind": kind, "sentence": sentence}

    found = f"val accuracy is highest at t = {t} ({_percent(best.val['accuracy'])})"
    if len(ordered) < 3:
        return verdict(
            "none", f"No curve to judge a peak by, with {len(ordered)} timestep(s): {found}; set more in embed.timesteps."
        )
    ends = [end for end in (ordered[0], ordered[-1]) if end is not best]
    gains = {end.candidate.t: bootstrap.mean(best.val_correct - end.val_correct) for end in ends}
    against = ", ".join(f"above t = {end} by {_points(gain)}" for end, gain in gains.items())
    unclear = " and ".join(f"t = {end}" for end, gain in gains.items() if gain.low <= 0)
    if unclear:
        return verdict("none", f"No clear peak over t: {found}, {against}; the gain over {unclear} is within chance. {NO_PEAK}")
    if len(ends) == 2:
        return verdict("interior", f"A peak inside the range of t: {found}, {against}.")
    cure = "train longer (train.steps)" if t in (0, NUM_TIMESTEPS - 1) else f"add timesteps beyond t = {t} to embed.timesteps"
    return verdict("edge", f"The highest point is an end of the range of t, not a peak inside it: {found}, {against}; {cure}.")


def comparisons(differences: Mapping[str, Estimate]) -> list[str]:
    """One sentence a baseline, from the paired difference of test accuracies (DiER minus baseline)."""
    sentences = []
    for representation, gain in differences.items():
        verb = "beats" if gain.low > 0 else "falls below" if gain.high < 0 else "cannot be told from"
        sentences.append(f"DiER {verb} {name_of(representation)} on test: {_points(gain)}.")
    return sentences


def warnings(best: Mapping[str, Scored], chance: float | None) -> list[str]:
    """Signs that something went wrong, each with what to change; `chance` is what naming the commonest class would score."""
    dier = best["dier"].val["accuracy"].value
    found = []
    rivals = {name: one.val["accuracy"].value for name, one in best.items() if name in ("pixels", "untrained")}
    if rivals and dier < min(rivals.values()):
        found.append(
            "Poor at every t: on val no timestep reaches raw pixels or the untrained encoder; the encoder is too small, unused or "
            "undertrained: try model.pool flat, a larger model.embed_dim or model.size, or more train.steps."
        )
    if chance is not None and dier < chance + 0.02:
        found.append("Near chance at every t: the encoder looks collapsed; lower train.lr and train again.")
    unfinished = [name for name, one in best.items() if not one.probe.converged]
    if unfinished:
        found.append(f"The chosen probe of {', '.join(map(name_of, unfinished))} stopped at probe.max_iter: raise it.")
    return found


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} %, 95 % interval {100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.2f} points (95 % interval {100 * estimate.low:+.2f} to {100 * estimate.high:+.2f})"
