"""`embed.timesteps: auto`: which timesteps are embedded, chosen on some images by `embed.select`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.common.errors import SettingsError
from components.probing.metrics import choosing_metric
from components.selecting import label_free as free
from components.selecting.labelled import SEARCHES, best
from components.selecting.places import grid, levels, side_by_side
from components.selecting.small_probe import SmallProbe
from data.format import Dataset, SplitName
from model.dier import DiER
from model.rng import sample_rows

LABELLED = 2000
"""Images of train that a small probe is fitted on at most, and of val that it is scored on."""
SHARDS = 8
"""Files of images that these are taken from at most, as each is read whole."""
SEED = 0
"""Of the choice of images, views and noise. The same in every part of an embed that is divided: all parts choose alike."""


@dataclass(frozen=True)
class Chosen:
    """What a way of choosing found: the best t, a row for each t that was tried, and what that cost.

    `encoded` and `denoised` count images through the encoder and through the denoiser, once for each t and each view.
    """

    t: int
    scores: list[dict[str, float]]
    encoded: int
    denoised: int = 0
    probes: int = 0
    notes: list[str] = field(default_factory=list)


def choose(select: str, k: int, model: DiER, dataset: Dataset, *, condition_dropout: bool) -> dict[str, Any]:
    """What selection.json holds, "timesteps" among it: k ascending ones about the best, "t". A function of its arguments alone.

    `select` is a name of METHODS, or "auto" for what docs/choosing-t.md found best. `model` is on its device, in evaluation mode.
    Raises SettingsError where labels are needed and there are none to tell apart.
    """
    if select == "auto":
        select = "label_free" if _unjudged(dataset) else "halving"
    chosen = METHODS[select](model, dataset, condition_dropout)
    schedule = model.config.schedule
    images = sum(dataset.info.counts.values())
    return {
        "select": select,
        "k": k,
        "t": chosen.t,
        "timesteps": side_by_side(chosen.t, k, schedule),
        "scores": chosen.scores,
        "cost": {
            "encoded": chosen.encoded,
            "denoised": chosen.denoised,
            "probes": chosen.probes,
            "of_a_sweep": round((chosen.encoded + chosen.denoised) / (images * len(grid(schedule))), 6),
        },
        "notes": chosen.notes,
    }


def _label_free(model: DiER, dataset: Dataset, condition_dropout: bool) -> Chosen:
    images, _ = _some(dataset, "train", free.IMAGES)
    timesteps = grid(model.config.schedule)
    rows = free.label_free(model, images, timesteps, SEED, condition_dropout=condition_dropout)
    top = max(rows, key=lambda row: row["score"])
    seen, denoised = min(len(images), free.VIEWED), min(len(images), free.DENOISED)
    note = (
        "gap_nats is against v_t withheld (zeros), as in training"
        if condition_dropout
        else "gap_nats is against another image's v_t: the model was trained without train.condition_dropout, "
        "and does not know what to do without v_t"
    )
    each = len(images) + free.VIEWS * seen
    return Chosen(int(top["t"]), rows, each * len(timesteps), 2 * denoised * len(timesteps), notes=[note])


def _search(select: str) -> Callable[[DiER, Dataset, bool], Chosen]:
    def searched(model: DiER, dataset: Dataset, condition_dropout: bool) -> Chosen:
        probe, known = _probe(model, dataset, select), levels(model.config.schedule)
        tried = list(SEARCHES[select](probe.value, grid(model.config.schedule), model.config.schedule))
        rows = [{"t": one.t, "log_snr": known[one.t], "images": one.size, "score": one.value} for one in tried]
        return Chosen(best(tried), rows, probe.encoded, probes=probe.probes)

    return searched


def _amortised(model: DiER, dataset: Dataset, condition_dropout: bool) -> Chosen:
    probe, timesteps = _probe(model, dataset, "amortised"), grid(model.config.schedule)
    values, known = probe.amortised(timesteps, SEED), levels(model.config.schedule)
    rows = [{"t": t, "log_snr": known[t], "score": value} for t, value in zip(timesteps, values, strict=True)]
    return Chosen(timesteps[int(np.argmax(values))], rows, probe.encoded, probes=probe.probes)


METHODS: dict[str, Callable[[DiER, Dataset, bool], Chosen]] = {
    **{name: _search(name) for name in SEARCHES},
    "amortised": _amortised,
    "label_free": _label_free,
}


def _unjudged(dataset: Dataset) -> str:
    """Why small probes cannot judge a t here; empty where they can."""
    if not dataset.info.counts["val"]:
        return "has no val images"
    return "" if dataset.info.labelled else "has a single class"


def _probe(model: DiER, dataset: Dataset, select: str) -> SmallProbe:
    info = dataset.info
    if what := _unjudged(dataset):
        raise SettingsError(f"embed.select {select} needs labels, and {dataset.path} {what}: set embed.select to label_free")
    train, val = (_some(dataset, name, LABELLED) for name in ("train", "val"))
    classes = 0 if info.multi_label else len(info.class_names)
    return SmallProbe(model, train, val, classes, choosing_metric(train[1], info.multi_label))


def _some(dataset: Dataset, split: SplitName, most: int) -> tuple[Any, Any]:
    """At most so many images of a split and their labels, in random order: the first ones of them are a sample too."""
    opened = dataset.split(split)
    rows = sample_rows(SEED, len(opened), opened.shards, most, SHARDS)
    order = np.random.default_rng(SEED).permutation(len(rows))
    return np.asarray(opened.images[rows])[order], np.asarray(opened.labels[rows])[order]
