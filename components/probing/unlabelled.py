"""Embeddings of images whose labels tell nothing apart: t by scores that need no label, and whether neighbours stay neighbours.

An image's neighbours are the training images nearest to it by cosine. A mild view (shifted, turned, a little brighter) shows the
same thing, so an embedding of content keeps its neighbours. The share that is kept is a number an image, so two models are compared
as two accuracies are: paired, over the same test images. It says that an embedding is steady, not that it tells classes apart.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from components.common.artifact import Artifact
from components.common.formatting import at_t, percent, with_interval
from components.common.progress import track
from components.common.settings import ProbeSettings
from components.embedding import store
from components.probing.baselines import label
from components.probing.metrics import Bootstrap, Estimate, spread
from components.probing.representations import pixel_values
from components.selecting.label_free import VIEWS, label_free, views
from components.selecting.places import side_by_side
from components.selecting.scores import rankme
from data.format import Dataset, Split, SplitName
from model.dier import DiER
from model.features import embed
from model.images import Images
from model.rng import sample, sample_rows
from model.schedule import log_snr
from model.weights import load_model

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]
Features = Callable[[Images], Floats]

NEIGHBOURS = 10
GALLERY = 10_000
"""Training images at most among which neighbours are looked for."""
QUERIES, WATCHED = 2000, 500
"""Test images at most whose neighbours are compared at the chosen t: the 95 % interval of the share kept is about +-0.01; and val
images at every t."""
CHUNK = 250
"""Images whose views, features and neighbours are in memory at a time."""
CHOSEN_BY = "label_free"


@dataclass(frozen=True)
class Kept:
    """The share of its neighbours that each image keeps, (N,) in [0, 1], of the test images `index` (N,)."""

    index: Ints
    share: Shares
    measure: str
    """How it was measured, as JSON: only what was measured alike can be compared."""


@dataclass(frozen=True)
class Examined:
    """What was found: metrics.json, the rows of curve.csv, and the share of neighbours kept at the chosen t."""

    metrics: dict[str, Any]
    curve: list[dict[str, Any]]
    kept: Kept


def examine(settings: ProbeSettings, dataset: Dataset, trained: Artifact, embedded: Artifact) -> Examined:
    """Choose t by label-free scores, or take what embed chose, and measure the embeddings there on test. No label is read."""
    model, facts = load_model(trained.path), embedded.json("embeddings.json")
    schedule = model.config.schedule
    t, scores, on = _chosen(settings, dataset, model, trained, embedded)
    timesteps = side_by_side(t, facts.get("k", 1), schedule, facts["timesteps"])
    gallery = _sample(dataset, "train", settings.seed, GALLERY)
    index = _sample(dataset, "test", settings.seed, QUERIES)
    features: dict[str, Features] = {"dier": partial(_embedded, model, timesteps)} | _baselines(settings, model)
    among = {"dier": _stored(embedded, "train", timesteps, gallery)}
    among |= {name: _of_rows(dataset.split("train"), gallery, features[name]) for name in features if name != "dier"}
    shares = {name: _kept(dataset.split("test"), index, features[name], among[name], settings.seed) for name in features}
    bootstrap = Bootstrap(len(index), settings.bootstrap, settings.seed)
    kept = {name: bootstrap.mean(one) for name, one in shares.items()}
    tested = {"kept": kept["dier"], **_shape(_stored(embedded, "test", timesteps, index))}
    watched = _watched(settings, dataset, model, embedded)
    found = {"t": t} if len(timesteps) == 1 else {"t": t, "timesteps": timesteps}
    metrics = found | {
        "dataset": dataset.info.name,
        "task": dataset.info.task,
        "class_names": dataset.info.class_names,
        "representation": "dier",
        "chosen_by": CHOSEN_BY,
        "variant": "",
        "log_snr": log_snr(t, schedule),
        "val": {name: one.row() for name, one in watched[t].items()},
        "test": {name: one.row() for name, one in tested.items()},
        "baselines": {
            name: {"t": None, "variant": "", "test": {"kept": one.row()}} for name, one in kept.items() if name != "dier"
        },
        "chance": round(min(NEIGHBOURS, len(gallery)) / len(gallery), 6),
        "embed_dim": model.config.embed_dim * len(timesteps),
        "train_images": len(gallery),
        "seeds": {"probe": settings.seed, "bootstrap_resamples": settings.bootstrap},
    }
    measure = json.dumps({"neighbours": NEIGHBOURS, "gallery": len(gallery), "views": VIEWS, "seed": settings.seed}, sort_keys=True)
    metrics |= _findings(metrics, kept, len(scores), on)
    curve = _curve(scores, on, watched, tested, metrics, schedule)
    return Examined(metrics, curve, Kept(index, shares["dier"], measure))


def _chosen(
    settings: ProbeSettings, dataset: Dataset, model: DiER, trained: Artifact, embedded: Artifact
) -> tuple[int, list[dict[str, float]], SplitName]:
    """The t, a row of label-free scores for each t that was tried, and the split of the images that they are of.

    Where embed chose its timesteps (`embed.timesteps: auto`), that is its choice.
    """
    if (embedded.path / store.SELECTION).is_file():
        selection = embedded.json(store.SELECTION)
        return int(selection["t"]), selection["scores"], "train"
    images = np.asarray(dataset.split("val").images[_sample(dataset, "val", settings.seed, QUERIES)])
    timesteps = embedded.json("embeddings.json")["timesteps"]
    scores = label_free(model, images, timesteps, settings.seed, condition_dropout=_withheld(trained))
    best = max(scores, key=lambda row: row["score"])  # the first where two are equal
    return int(best["t"]), scores, "val"


def _watched(settings: ProbeSettings, dataset: Dataset, model: DiER, embedded: Artifact) -> dict[int, dict[str, Estimate]]:
    """For each t that was embedded the neighbours kept, effective rank and spread on val."""
    split, index = dataset.split("val"), _sample(dataset, "val", settings.seed, QUERIES)
    gallery = _sample(dataset, "train", settings.seed, GALLERY)
    some = index[sample(settings.seed, len(index), WATCHED)]
    bootstrap = Bootstrap(len(some), settings.bootstrap, settings.seed)
    timesteps = embedded.json("embeddings.json")["timesteps"]
    found = {}
    for t in track(timesteps, len(timesteps), "probe", "timesteps"):
        kept = _kept(split, some, partial(_embedded, model, [t]), _stored(embedded, "train", [t], gallery), settings.seed)
        found[t] = {"kept": bootstrap.mean(kept), **_shape(_stored(embedded, "val", [t], index))}
    return found


def _embedded(model: DiER, timesteps: Sequence[int], images: Images) -> Floats:
    """Embeddings at several t side by side."""
    return np.concatenate([embed(model, images, t) for t in timesteps], axis=1)


def _stored(embedded: Artifact, split: SplitName, timesteps: Sequence[int], rows: Ints) -> Floats:
    """The same of some images of a split, as they were exported."""
    return np.concatenate([store.read(embedded, split, t, rows) for t in timesteps], axis=1)


def _baselines(settings: ProbeSettings, model: DiER) -> dict[str, Features]:
    """What else the neighbours are looked for in, so that a share has something to stand beside."""
    known: dict[str, Features] = {"pixels": pixel_values, "untrained": partial(_embedded, model.untrained(), [0])}
    return {name: features for name, features in known.items() if name in settings.baselines}


def _of_rows(split: Split, rows: Ints, features: Features) -> Floats:
    """The features (n, D) of some images of a split, computed CHUNK images at a time."""
    return np.concatenate([features(np.asarray(split.images[part])) for part in _parts(rows)])


def _kept(split: Split, rows: Ints, features: Features, among: Floats, seed: int) -> Shares:
    """`neighbours_kept` of some images of a split in mild views of them, CHUNK images at a time."""
    shares = []
    for part in _parts(rows):
        images = np.asarray(split.images[part])
        seen = views(images, seed)  # the same draws for each chunk, and others for each image of it
        shares.append(neighbours_kept(features(images), [features(view) for view in seen], among))
    return np.concatenate(shares)


def _parts(rows: Ints) -> list[Ints]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def neighbours_kept(v: Floats, seen: Sequence[Floats], gallery: Floats) -> Shares:
    """The share of its nearest images of `gallery` (G, D) that each of v (N, D) keeps in its views (N, D) each: (N,) in [0, 1]."""
    unit, k = _unit(gallery), min(NEIGHBOURS, len(gallery))
    own = _nearest(v, unit, k)
    same = [(_nearest(view, unit, k)[:, :, None] == own[:, None, :]).sum(axis=(1, 2)) / k for view in seen]
    return np.asarray(np.mean(same, axis=0))


def _nearest(v: Floats, unit: Floats, k: int) -> Ints:
    """Numbers (n, k) of the k rows of `unit` (G, D) nearest to v (n, D) by cosine, in no order."""
    return np.asarray(np.argpartition(-(_unit(v) @ unit.T), k - 1, axis=1)[:, :k])


def _unit(v: npt.NDArray[Any]) -> Floats:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12), np.float32)


def _shape(v: Floats) -> dict[str, Estimate]:
    """How many directions embeddings (N, D) vary in, and how much: both fall when an encoder collapses."""
    return {"effective_rank": _exact(rankme(v - v.mean(axis=0))), "spread": _exact(spread(v))}


def _exact(value: float) -> Estimate:
    """A number without an interval."""
    return Estimate(float(value), np.empty(0))


def _curve(
    scores: Sequence[Mapping[str, float]],
    on: SplitName,
    watched: Mapping[int, Mapping[str, Estimate]],
    tested: Mapping[str, Estimate],
    metrics: Mapping[str, Any],
    schedule: str,
) -> list[dict[str, Any]]:
    """The rows of curve.csv: the scores of each t that was tried, DiER on val at each that was embedded, what was read on test."""

    def row(name: str, t: int | None, split: SplitName, metric: str, figures: Mapping[str, float | None]) -> dict[str, Any]:
        level = None if t is None else round(log_snr(t, schedule), 4)
        place = {"t": t, "log_snr": level, "representation": name, "variant": "", "split": split, "metric": metric}
        return place | dict(figures) | {"c": None}

    rows = [row("dier", int(one["t"]), on, name, _exact(one[name]).row()) for one in scores for name in ("score", "gap_nats")]
    rows += [row("dier", t, "val", name, one.row()) for t, found in watched.items() for name, one in found.items()]
    rows += [row("dier", metrics["t"], "test", name, one.row()) for name, one in tested.items()]
    return rows + [row(name, None, "test", "kept", found["test"]["kept"]) for name, found in metrics["baselines"].items()]


def _findings(metrics: Mapping[str, Any], kept: Mapping[str, Estimate], tried: int, on: SplitName) -> dict[str, Any]:
    """The sentences: how t was chosen, how steady and how rich the embeddings are, and what nobody can know without labels."""
    t, rank, number = metrics["t"], metrics["test"]["effective_rank"]["value"], min(NEIGHBOURS, metrics["train_images"])
    beside = "".join(f"; of those by {label(name)} {percent(one.value)}" for name, one in kept.items() if name != "dier")
    chosen = (
        f"The labels tell nothing apart, so there is no accuracy: t = {t} is the best of {tried} on {on} by a score that needs no "
        f"label{f'; used at {at_t(metrics)}' if 'timesteps' in metrics else ''}."
    )
    return {
        "peak": {"t": t, "kind": "none", "sentence": chosen},
        "conclusions": [
            f"Shifted, turned and brightened a little, a test image keeps {with_interval(kept['dier'].row())} of its {number} "
            f"nearest training images{beside}; by chance {percent(metrics['chance'])}.",
            f"The embeddings vary in {rank:.1f} of {metrics['embed_dim']} directions (effective rank).",
            "Steady and rich is not the same as telling your classes apart, which only labels can show: label some images of each "
            "class and probe them.",
        ],
    }


def _withheld(trained: Artifact) -> bool:
    """Whether the model was trained with some v_t withheld, as its settings tell."""
    recorded = trained.json("settings.json") if (trained.path / "settings.json").is_file() else {}
    return bool(recorded.get("train", {}).get("condition_dropout", 0))


def _sample(dataset: Dataset, split: SplitName, seed: int, most: int) -> Ints:
    opened = dataset.split(split)
    return sample_rows(seed, len(opened), opened.shards, most)
