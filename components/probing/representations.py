"""The representations that are probed side by side, DiER's and the baselines, each with all that is chosen on val."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from sklearn.decomposition import PCA

from components.common.artifact import Artifact
from components.common.errors import SettingsError
from components.common.settings import ProbeSettings
from components.embedding import store
from components.probing.baselines import BaselineName, block
from components.probing.classifier import Floats
from data.format import Dataset, SplitName
from model.dier import DiER
from model.features import denoiser_layers, embed
from model.images import to_tensor
from model.weights import load_model

LARGEST_SIDE = 32
"""The pixel baselines see larger images averaged down to this many pixels a side: their features would not fit in memory."""
PCA_IMAGES = 20_000
PCA_SHARES = (1, 2, 4)
"""PCA is tried with as many components as DiER has numbers, a half and a quarter of that: the last ones may be noise."""


@dataclass(frozen=True)
class Candidate:
    """One representation at one timestep (None where it has none); `features` gives a split's (N, D) float32.

    `variant` says what else is chosen on val, such as the number of components. Without `standardise` the probe takes the features
    as they are: standardising principal components whitens them.
    """

    representation: str
    t: int | None
    features: Callable[[SplitName], Floats]
    variant: str = ""
    standardise: bool = True


@dataclass(frozen=True)
class Sources:
    """What baselines are computed from."""

    settings: ProbeSettings
    dataset: Dataset
    model: DiER


def candidates(settings: ProbeSettings, dataset: Dataset, model: Artifact, embedded: Artifact) -> Iterator[Candidate]:
    """Every candidate, DiER's timesteps first. Features are computed when asked for; the denoiser's are kept for one t."""
    for t in embedded.json("embeddings.json")["timesteps"]:
        yield Candidate("dier", t, partial(store.read, embedded, t=t))
    sources = Sources(settings, dataset, load_model(model.path))
    for name, made in CANDIDATES.items():
        if name in settings.baselines:
            yield from made(sources)


def _pixels(sources: Sources) -> Iterator[Candidate]:
    yield Candidate("pixels", None, partial(_pixel_values, sources.dataset))


def _pca(sources: Sources) -> Iterator[Candidate]:
    @cache
    def fitted() -> PCA:
        x = _pixel_values(sources.dataset, "train")
        x = x[np.random.default_rng(sources.settings.seed).permutation(len(x))[:PCA_IMAGES]]
        solver = "full" if x.shape[1] <= 1024 else "randomized"
        return PCA(min(largest, *x.shape), svd_solver=solver, random_state=sources.settings.seed).fit(x)

    @cache
    def projected(split: SplitName) -> Floats:
        return np.asarray(fitted().transform(_pixel_values(sources.dataset, split)), np.float32)

    def features(split: SplitName, components: int) -> Floats:
        # one scale for all, so that a C means about the same with and without whitening
        scale = np.sqrt(fitted().explained_variance_[:components].mean()) or 1.0
        return np.asarray(projected(split)[:, :components] / scale, np.float32)

    height, width, channels = sources.dataset.info.image_shape
    pixels = min(height, LARGEST_SIDE) * min(width, LARGEST_SIDE) * channels
    largest = min(sources.model.config.embed_dim, pixels, sources.dataset.info.counts["train"])
    for components in sorted({max(1, largest // share) for share in PCA_SHARES}):
        for whiten in (False, True):
            variant = f"{components} components, {'whitened' if whiten else 'not whitened'}"
            yield Candidate("pca", None, partial(features, components=components), variant, standardise=whiten)


def _untrained(sources: Sources) -> Iterator[Candidate]:
    fresh = DiER(sources.model.config).eval()  # the very weights that training began with; they do not look at t yet
    yield Candidate("untrained", None, lambda split: embed(fresh, sources.dataset.split(split).images, 0))


def _denoiser_given_v(sources: Sources) -> Iterator[Candidate]:
    """Mean-pooled blocks of the denoiser on x_t, with v_t of the clean image as its condition: they contain DiER's embedding."""
    settings = sources.settings
    blocks = denoiser_blocks(settings.denoiser_blocks, sources.model.config.depth)
    computed: dict[tuple[int, SplitName], dict[int, Floats]] = {}

    def features(split: SplitName, number: int, t: int) -> Floats:
        if (t, split) not in computed:  # one pass gives every block; those of another t are not needed again until test
            for other in [place for place in computed if place[0] != t]:
                del computed[other]
            layers = denoiser_layers(sources.model, sources.dataset.split(split).images, t, seed=settings.seed)
            computed[t, split] = {number: layers[number] for number in blocks}
        return computed[t, split][number]

    for t in settings.baseline_timesteps:
        for number in blocks:
            yield Candidate(block("denoiser_given_v", number), t, partial(features, number=number, t=t))


CANDIDATES: Mapping[BaselineName, Callable[[Sources], Iterator[Candidate]]] = {
    "pixels": _pixels,
    "pca": _pca,
    "untrained": _untrained,
    "denoiser_given_v": _denoiser_given_v,
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


def _pixel_values(dataset: Dataset, split: SplitName) -> Floats:
    images = dataset.split(split).images
    side = tuple(min(size, LARGEST_SIDE) for size in images.shape[1:3])
    parts = []
    for start in range(0, len(images), 1000):
        x = to_tensor(images[start : start + 1000])
        if tuple(x.shape[2:]) != side:
            x = torch.nn.functional.adaptive_avg_pool2d(x, side)
        parts.append(x.flatten(1).numpy())
    return np.concatenate(parts)
