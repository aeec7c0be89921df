"""Embeddings of images whose labels tell nothing apart: t by scores that need no label, and whether neighbours stay neighbours.

An image's neighbours are the training images nearest to it by cosine. A mild view (shifted, turned, a little brighter) shows the
same thing, so an embedding of content keeps its neighbours. The share that is kept is a number an image, so two models are compared
as two accuracies are: paired, over the same test images. It says that an embedding is steady, not that it tells classes apart.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.common.artifact import Artifact
from components.common.formatting import percent, with_interval
from components.common.progress import track
from components.common.settings import ProbeSettings
from components.embedding import store
from components.probing.baselines import label
from components.probing.metrics import Bootstrap, Estimate, spread
from components.probing.representations import BATCH, pixel_values, untrained
from components.selecting.label_free import label_free, views
from components.selecting.scores import rankme
from data.format import Dataset, SplitName
from model.dier import DiER
from model.features import embed
from model.images import Images
from model.rng import sample_rows
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
"""Queries that are compared with the gallery at a time."""
CHOSEN_BY = "label_free"
SCORES = ("score", "kept", "effective_rank", "spread", "gap_nats")
"""What curve.csv holds for each t, on val: the label-free score that chooses t, the share of neighbours kept, `effective_rank` and
`spread` of the embeddings, and nats that v_t tells the denoiser a unit of log-SNR."""


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
    """Choose t on val by label-free scores, and measure the embeddings there on test. No label is read."""
    model = load_model(trained.path)
    found = _over_t(settings, dataset, model, trained, embedded)
    chosen = max(found, key=lambda row: row["score"].value)  # the first where two are equal
    t = int(chosen["t"].value)
    gallery = _sample(dataset, "train", settings.seed, GALLERY)
    index = _sample(dataset, "test", settings.seed, QUERIES)
    images = np.asarray(dataset.split("test").images[index])
    seen = views(images, settings.seed)
    v = store.read(embedded, "test", t, index)
    share = neighbours_kept(v, [embed(model, view, t) for view in seen], store.read(embedded, "train", t, gallery))
    shares = {"dier": share} | _of_baselines(settings, dataset, model, gallery, images, seen)
    bootstrap = Bootstrap(len(index), settings.bootstrap, settings.seed)
    kept = {name: bootstrap.mean(one) for name, one in shares.items()}
    tested = {"kept": kept["dier"], **_shape(v)}
    metrics = {
        "dataset": dataset.info.name,
        "task": dataset.info.task,
        "class_names": dataset.info.class_names,
        "representation": "dier",
        "chosen_by": CHOSEN_BY,
        "t": t,
        "variant": "",
        "log_snr": log_snr(t, model.config.schedule),
        "val": {name: chosen[name].row() for name in SCORES},
        "test": {name: one.row() for name, one in tested.items()},
        "baselines": {
            name: {"t": None, "variant": "", "test": {"kept": one.row()}} for name, one in kept.items() if name != "dier"
        },
        "chance": round(min(NEIGHBOURS, len(gallery)) / len(gallery), 6),
        "embed_dim": model.config.embed_dim,
        "train_images": len(gallery),
        "seeds": {"probe": settings.seed, "bootstrap_resamples": settings.bootstrap},
    }
    rows = [_row("dier", int(one["t"].value), one, "val", name, schedule=model.config.schedule) for one in found for name in SCORES]
    rows += [_row("dier", t, tested, "test", name, schedule=model.config.schedule) for name in tested]
    rows += [_row(name, None, {"kept": one}, "test", "kept") for name, one in kept.items() if name != "dier"]
    measure = {"neighbours": NEIGHBOURS, "gallery": len(gallery), "views": len(seen), "seed": settings.seed}
    return Examined(metrics | _findings(metrics, kept, len(found)), rows, Kept(index, share, json.dumps(measure, sort_keys=True)))


def _over_t(
    settings: ProbeSettings, dataset: Dataset, model: DiER, trained: Artifact, embedded: Artifact
) -> list[dict[str, Estimate]]:
    """A row a timestep, on val: t, and each of SCORES."""
    index = _sample(dataset, "val", settings.seed, QUERIES)
    images = np.asarray(dataset.split("val").images[index])
    gallery = _sample(dataset, "train", settings.seed, GALLERY)
    seen = views(images[:WATCHED], settings.seed)
    bootstrap = Bootstrap(seen.shape[1], settings.bootstrap, settings.seed)
    timesteps = embedded.json("embeddings.json")["timesteps"]
    scored = label_free(model, images, timesteps, settings.seed, condition_dropout=_withheld(trained))
    rows = []
    for scores in track(scored, len(scored), "probe", "timesteps"):
        t = int(scores["t"])
        v = store.read(embedded, "val", t, index)
        of_views = [embed(model, view, t) for view in seen]
        kept = bootstrap.mean(neighbours_kept(v[:WATCHED], of_views, store.read(embedded, "train", t, gallery)))
        given = {name: _exact(scores[name]) for name in ("t", "score", "gap_nats")}
        rows.append(given | {"kept": kept} | _shape(v))
    return rows


def _of_baselines(
    settings: ProbeSettings, dataset: Dataset, model: DiER, gallery: Ints, images: Images, seen: Images
) -> dict[str, Shares]:
    """The share that each image keeps of its neighbours by pixels and by the untrained encoder: what the figure stands beside."""
    fresh, train = untrained(model), dataset.split("train").images
    known: dict[str, Features] = {"pixels": pixel_values, "untrained": lambda images: embed(fresh, images, 0)}
    found: dict[str, Shares] = {}
    for name, features in known.items():
        if name in settings.baselines:
            parts = np.array_split(gallery, len(gallery) // BATCH + 1)
            among = np.concatenate([features(np.asarray(train[part])) for part in parts])
            found[name] = neighbours_kept(features(images), [features(view) for view in seen], among)
    return found


def neighbours_kept(v: Floats, seen: Sequence[Floats], gallery: Floats) -> Shares:
    """The share of its nearest images of `gallery` (G, D) that each of v (N, D) keeps in its views (N, D) each: (N,) in [0, 1]."""
    unit, k = _unit(gallery), min(NEIGHBOURS, len(gallery))
    share = np.empty(len(v))
    for start in range(0, len(v), CHUNK):
        here = slice(start, start + CHUNK)
        own = _nearest(v[here], unit, k)
        same = [(_nearest(view[here], unit, k)[:, :, None] == own[:, None, :]).sum(axis=(1, 2)) / k for view in seen]
        share[here] = np.mean(same, axis=0)
    return share


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


def _row(
    name: str, t: int | None, values: Mapping[str, Estimate], split: SplitName, metric: str, schedule: str = ""
) -> dict[str, Any]:
    """A row of curve.csv."""
    level = None if t is None else round(log_snr(t, schedule), 4)
    place = {"t": t, "log_snr": level, "representation": name, "variant": "", "split": split, "metric": metric}
    return place | values[metric].row() | {"c": None}


def _findings(metrics: Mapping[str, Any], kept: Mapping[str, Estimate], tried: int) -> dict[str, Any]:
    """The sentences: how t was chosen, how steady and how rich the embeddings are, and what nobody can know without labels."""
    t, rank, number = metrics["t"], metrics["test"]["effective_rank"]["value"], min(NEIGHBOURS, metrics["train_images"])
    beside = "".join(f"; of those by {label(name)} {percent(one.value)}" for name, one in kept.items() if name != "dier")
    chosen = (
        f"The labels tell nothing apart, so there is no accuracy: t = {t} is the best of {tried} on val by a score that needs no "
        "label."
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
