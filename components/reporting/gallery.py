"""Images on the page: samples of each class, nearest neighbours, and what the denoiser makes of noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from components.common.formatting import percent
from components.embedding.store import Ints, read
from components.reporting.figures import Picture, tile
from components.reporting.inputs import Inputs
from components.reporting.projection import nearest, sample
from data.format import Split

MOST_CLASSES = 24
SAMPLE_TILES = 120
"""Tiles of the sample table in all: fewer a class where there are many classes."""
NEIGHBOURS = 6
MOST_QUERIES = 10
NEIGHBOUR_SAMPLE = 500
"""Val images behind the share of neighbours that agree; the images shown are among them."""
DENOISE_AT = (50, 200, 400, 600)
DENOISE_BATCH = 16
DENOISE_SHOWN = 3


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, images a split, and some of its training images."""

    name: str
    counts: dict[str, int]
    tiles: list[Picture]


@dataclass(frozen=True)
class Neighbour:
    """One training image beside a query; `right` where it carries the query's label."""

    picture: Picture
    label: str
    right: bool


@dataclass(frozen=True)
class Query:
    """One val image and its nearest training images, nearest first."""

    picture: Picture
    label: str
    neighbours: list[Neighbour]


@dataclass(frozen=True)
class Denoised:
    """One clean image, and at each t the noisy one, the estimate with its own v_t, and that with another image's."""

    clean: Picture
    noisy: list[Picture]
    own: list[Picture]
    swapped: list[Picture]


def classes(inputs: Inputs) -> list[ClassRow]:
    """A row for each of the first classes, with evenly spread training images, of each original one copy at most."""
    info = inputs.dataset.info
    train = inputs.dataset.split("train")
    splits = [inputs.dataset.split(name) for name, count in info.counts.items() if count]
    per_split = {split.name: _class_counts(split, len(info.class_names)) for split in splits}
    listed = info.class_names[:MOST_CLASSES]
    each = min(12, max(3, SAMPLE_TILES // max(len(listed), 1)))
    members = [np.flatnonzero(_belongs(train, number))[:: info.copies] for number in range(len(listed))]
    chosen = [rows[np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int)] if len(rows) else rows for rows in members]
    images = iter(train.images[np.concatenate([*chosen, np.empty(0, np.int64)])])  # at once: a shard is read once for all of them
    found = []
    for number, (name, rows) in enumerate(zip(listed, chosen, strict=True)):
        counts = {str(split): int(counted[number]) for split, counted in per_split.items()}
        found.append(ClassRow(name, counts, [tile(next(images)) for _ in rows]))
    return found


def _belongs(split: Split, number: int) -> Any:
    return split.labels[:, number] == 1 if split.labels.ndim == 2 else split.labels == number


def _class_counts(split: Split, classes: int) -> Any:
    labels = np.asarray(split.labels)
    return labels.sum(axis=0, dtype=np.int64) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


def neighbours(inputs: Inputs) -> tuple[list[Query], str] | None:
    """Val images with their nearest training images by cosine on v_t at the chosen t, and a sentence on how many agree.

    Of an original's copies the nearest one counts alone. Where labels tell nothing apart the sentence is empty. None where train or
    val was not exported. Call inside `one_thread`.
    """
    train_files = inputs.embeddings("train", inputs.t)
    if not train_files or not inputs.embeddings("val", inputs.t):
        return None
    val, train = inputs.dataset.split("val"), inputs.dataset.split("train")
    queries = sample(len(val), NEIGHBOUR_SAMPLE)
    v = read(inputs.artifacts["embeddings"], "val", inputs.t, queries)
    copies = inputs.dataset.info.copies
    wanted = min(NEIGHBOURS, len(train) // copies)
    found = _of_other_originals(nearest(v, train_files, wanted * copies), copies, wanted)  # (n, k)
    agree = _same(np.asarray(val.labels[queries])[:, None], np.asarray(train.labels)[found])
    sentence = (
        f"Over {len(queries)} validation images, {percent(float(agree.mean()))} of the {found.shape[1]} nearest training images"
        f"{', each of another original,' if copies > 1 else ''} "
        f"carry exactly the same label{'s' if inputs.dataset.info.multi_label else ''}."
    )
    if not inputs.labelled:
        sentence = ""
    names = inputs.dataset.info.class_names
    examples = []
    shown = _one_a_class(np.asarray(val.labels[queries])) if inputs.labelled else np.arange(min(MOST_QUERIES, len(queries)))
    asked = val.images[queries[shown]]  # each split's images at once: a shard is read once for all of them
    nearby = train.images[found[shown].reshape(-1)].reshape(*found[shown].shape, *asked.shape[1:])
    for row, image, pictures in zip(shown, asked, nearby, strict=True):
        near = [
            Neighbour(tile(picture), _label(train.labels[index], names), bool(same))
            for picture, index, same in zip(pictures, found[row], agree[row], strict=True)
        ]
        examples.append(Query(tile(image), _label(val.labels[queries[row]], names), near))
    return examples, sentence


def _of_other_originals(found: Ints, copies: int, wanted: int) -> Ints:
    """Of training images (n, K), nearest first, the first `wanted` that are no copy of an earlier one's original: (n, wanted)."""
    if copies == 1:
        return found
    firsts = [np.sort(np.unique(row, return_index=True)[1])[:wanted] for row in found // copies]
    return np.take_along_axis(found, np.stack(firsts), axis=1)


def _same(one: Any, other: Any) -> Any:
    """Whether labels agree: (n, 1) and (n, k), or for multi-label (n, 1, L) and (n, k, L), all of the L."""
    return (one == other).all(axis=2) if other.ndim == 3 else one == other


def _one_a_class(labels: Any) -> Ints:
    """Rows to show: the first of each class, so that no easy class fills the page; without classes the first ones."""
    if labels.ndim == 2:
        return np.arange(min(MOST_QUERIES, len(labels)))
    return np.asarray(np.sort(np.unique(labels, return_index=True)[1][:MOST_QUERIES]))


def _label(label: Any, names: list[str]) -> str:
    if np.ndim(label):
        return ", ".join(names[number] for number in np.flatnonzero(label)) or "no label"
    return names[int(label)]


def denoised(inputs: Inputs) -> tuple[list[int], list[Denoised]]:
    """The timesteps shown, and a few images noised and restored at each with v_t and with another image's v_t.

    Call inside `one_thread`.
    """
    from model.features import denoise
    from model.weights import load_model

    model = load_model(inputs.artifacts["model"].path)
    split = inputs.dataset.split(inputs.picture_split)
    copies = inputs.dataset.info.copies
    chosen = _mixed(sample(len(split) // copies, DENOISE_BATCH)) * copies  # a first copy each: none gets its own original's v_t
    images = np.ascontiguousarray(split.images[chosen])
    timesteps = list(DENOISE_AT)
    own = [denoise(model, images, t, seed=0) for t in timesteps]
    swapped = [denoise(model, images, t, seed=0, shuffle=True) for t in timesteps]
    examples = []
    for row in range(min(DENOISE_SHOWN, len(images))):
        examples.append(
            Denoised(
                tile(images[row], "clean image"),
                [tile(noisy[row], f"the image with noise of t = {t}") for t, (noisy, _) in zip(timesteps, own, strict=True)],
                [tile(x0[row], f"restored at t = {t} with its own embedding") for t, (_, x0) in zip(timesteps, own, strict=True)],
                [tile(x0[row], f"restored at t = {t}, embedding swapped") for t, (_, x0) in zip(timesteps, swapped, strict=True)],
            )
        )
    return timesteps, examples


def _mixed(ascending: Ints) -> Ints:
    """In random order: sets sorted by class would otherwise swap an embedding for one of the same class."""
    return np.asarray(np.random.default_rng(0).permutation(ascending))
