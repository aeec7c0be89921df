"""The representations that are probed side by side, DiER's and the baselines, each with all that is chosen on val."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from components.common.artifact import Artifact
from components.common.errors import SettingsError
from components.common.settings import ProbeSettings
from components.embedding import store
from components.probing.baselines import REDUCED, SIDE_BY_SIDE, BaselineName, block
from components.probing.candidate import Candidate, Ints, Pass, gather, images_of
from components.probing.classifier import Floats
from data.format import Dataset, SplitName
from model.dier import DiER
from model.features import denoiser_layers, embed, trunk
from model.images import Images, to_tensor
from model.weights import load_model

LARGEST_SIDE = 32
"""The pixel baselines see larger images averaged down to this many pixels a side: their features would not fit in memory."""
PIXEL_BYTES = 32 * 2**20
"""Bytes of images whose pixels are read at a time."""
BATCH = 500
"""Images that a network is given at a time."""
PCA_IMAGES = 20_000
PCA_SHARES = (1, 2, 4)
"""PCA is tried with as many components as DiER has numbers, a half and a quarter of that: the last ones may be noise."""


@dataclass(frozen=True)
class Sources:
    """What baselines are computed from."""

    settings: ProbeSettings
    dataset: Dataset
    model: DiER
    timesteps: Sequence[int] = ()
    """Those that are embedded."""
    last_pass: Pass = field(default_factory=Pass)


def candidates(settings: ProbeSettings, dataset: Dataset, model: Artifact, embedded: Artifact) -> Iterator[Candidate]:
    """Every candidate, DiER's timesteps first. Features are computed when asked for, of the images asked for."""
    timesteps = embedded.json("embeddings.json")["timesteps"]
    for t in timesteps:
        yield Candidate("dier", t, partial(_stored, embedded, t))
    sources = Sources(settings, dataset, load_model(model.path), timesteps)
    for name, made in CANDIDATES.items():
        if name in settings.baselines:
            yield from made(sources)


def _stored(embedded: Artifact, t: int, split: SplitName, rows: Ints | None) -> Iterator[Floats]:
    if rows is None:
        for _, vectors in store.pieces(store.files_of(embedded.path, split, t)):
            yield vectors
    else:
        yield store.read(embedded, split, t, rows)


def side_by_side(settings: ProbeSettings, dataset: Dataset, embedded: Artifact, timesteps: Sequence[int]) -> Iterator[Candidate]:
    """DiER at several t as one embedding: all of its numbers, and as many principal components as one embedding has."""
    whole = partial(_together, embedded, timesteps)
    variant = f"t = {', '.join(map(str, timesteps))}"
    yield Candidate(SIDE_BY_SIDE, None, whole, variant)
    count = dataset.info.counts["train"]
    components = min(int(embedded.json("embeddings.json")["embed_dim"]), count)

    @cache
    def fitted() -> Pipeline:
        rows = np.sort(np.random.default_rng(settings.seed).permutation(count)[:PCA_IMAGES])
        reduced = make_pipeline(StandardScaler(), PCA(components, svd_solver="covariance_eigh"))
        return reduced.fit(gather(whole("train", rows), len(rows)))

    def pieces(split: SplitName, rows: Ints | None) -> Iterator[Floats]:
        for x in whole(split, rows):
            yield np.asarray(fitted().transform(x), np.float32)

    for whiten in (False, True):
        said = f"{variant}, {components} components, {'whitened' if whiten else 'not whitened'}"
        yield Candidate(REDUCED, None, pieces, said, standardise=whiten)


def _together(embedded: Artifact, timesteps: Sequence[int], split: SplitName, rows: Ints | None) -> Iterator[Floats]:
    for vectors in zip(*(_stored(embedded, t, split, rows) for t in timesteps), strict=True):
        yield np.concatenate(vectors, axis=1)


def _pixels(sources: Sources) -> Iterator[Candidate]:
    yield Candidate("pixels", None, partial(_pixel_values, sources.dataset))


def _pca(sources: Sources) -> Iterator[Candidate]:
    dataset, settings, count = sources.dataset, sources.settings, sources.dataset.info.counts["train"]

    @cache
    def fitted() -> PCA:
        chosen = np.random.default_rng(settings.seed).permutation(count)[:PCA_IMAGES]
        x = gather(_pixel_values(dataset, "train", np.sort(chosen)), len(chosen))[chosen.argsort().argsort()]
        solver = "full" if x.shape[1] <= 1024 else "randomized"
        return PCA(min(largest, *x.shape), svd_solver=solver, random_state=settings.seed).fit(x)

    def projected(split: SplitName, rows: Ints | None) -> Iterator[dict[int, Floats]]:
        for x in _pixel_values(dataset, split, rows):
            yield {0: np.asarray(fitted().transform(x), np.float32)}

    def pieces(split: SplitName, rows: Ints | None, components: int) -> Iterator[Floats]:
        # one scale for all, so that a C means about the same with and without whitening
        scale = np.sqrt(fitted().explained_variance_[:components].mean()) or 1.0
        for x in sources.last_pass.pieces("pca", split, rows, 0, projected):
            yield np.asarray(x[:, :components] / scale, np.float32)

    height, width, channels = dataset.info.image_shape
    pixels = min(height, LARGEST_SIDE) * min(width, LARGEST_SIDE) * channels
    largest = min(sources.model.config.embed_dim, pixels, count)
    for components in sorted({max(1, largest // share) for share in PCA_SHARES}):
        for whiten in (False, True):
            variant = f"{components} components, {'whitened' if whiten else 'not whitened'}"
            yield Candidate("pca", None, partial(pieces, components=components), variant, standardise=whiten)


def _untrained(sources: Sources) -> Iterator[Candidate]:
    fresh = sources.model.untrained()  # it does not look at t yet

    def pieces(split: SplitName, rows: Ints | None) -> Iterator[Floats]:
        for _, images in images_of(sources.dataset.split(split), rows, BATCH):
            yield embed(fresh, images, 0)

    yield Candidate("untrained", None, pieces)


def _denoiser_given_v(sources: Sources) -> Iterator[Candidate]:
    """Mean-pooled blocks of the denoiser on x_t, with v_t of the clean image as its condition: they contain DiER's embedding."""
    settings = sources.settings
    blocks = denoiser_blocks(settings.denoiser_blocks, sources.model.config.denoiser.depth)

    def computed(split: SplitName, rows: Ints | None, t: int) -> Iterator[dict[int, Floats]]:
        opened = sources.dataset.split(split)
        for numbers, images in images_of(opened, rows, BATCH):
            layers = denoiser_layers(sources.model, images, t, seed=settings.seed, numbers=numbers, of=len(opened))
            yield {number: layers[number] for number in blocks}

    def pieces(split: SplitName, rows: Ints | None, number: int, t: int) -> Iterator[Floats]:
        return sources.last_pass.pieces(("denoiser", t), split, rows, number, partial(computed, t=t))

    for t in settings.baseline_timesteps:
        for number in blocks:
            yield Candidate(block("denoiser_given_v", number), t, partial(pieces, number=number, t=t))


def _trunk(sources: Sources) -> Iterator[Candidate]:
    """The encoder's pooled tokens before the head, at the timesteps that are embedded."""

    def pieces(split: SplitName, rows: Ints | None, t: int) -> Iterator[Floats]:
        for _, images in images_of(sources.dataset.split(split), rows, BATCH):
            yield trunk(sources.model, images, t)

    for t in sources.timesteps:
        yield Candidate("dier_trunk", t, partial(pieces, t=t))


CANDIDATES: Mapping[BaselineName, Callable[[Sources], Iterator[Candidate]]] = {
    "pixels": _pixels,
    "pca": _pca,
    "untrained": _untrained,
    "denoiser_given_v": _denoiser_given_v,
    "dier_trunk": _trunk,
}


def denoiser_blocks(chosen: list[int] | None, depth: int) -> list[int]:
    """Which blocks to probe: the given ones, or up to three evenly spaced. Raises SettingsError for one that is not there."""
    if chosen is None:
        return sorted({depth * k // 4 for k in (1, 2, 3)})
    if missing := [block for block in chosen if block >= depth]:
        raise SettingsError(
            f"probe.denoiser_blocks = {chosen}: block {missing[0]} does not exist, the denoiser has 0 .. {depth - 1}"
        )
    return chosen


def pixel_values(images: Images) -> Floats:
    """Images (N, H, W, C) uint8, averaged down to LARGEST_SIDE pixels a side where they are larger: (N, D) float32 in [-1, 1]."""
    x = to_tensor(images)
    side = min(x.shape[2], LARGEST_SIDE), min(x.shape[3], LARGEST_SIDE)
    if tuple(x.shape[2:]) != side:
        x = torch.nn.functional.adaptive_avg_pool2d(x, side)
    return x.flatten(1).numpy()


def _pixel_values(dataset: Dataset, split: SplitName, rows: Ints | None) -> Iterator[Floats]:
    opened = dataset.split(split)
    height, width, channels = opened.images.shape[1:]
    for _, images in images_of(opened, rows, max(1, PIXEL_BYTES // (4 * height * width * channels))):
        yield pixel_values(images)
