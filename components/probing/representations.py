"""The representations that are probed side by side, DiER's and the baselines, each at its timesteps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA

from components.common.artifact import Artifact
from components.common.errors import SettingsError
from components.common.settings import ProbeSettings
from components.embedding import store
from components.probing.classifier import Floats
from data.format import Dataset, SplitName
from model.dier import DiER
from model.features import denoiser_layers, embed
from model.images import to_tensor
from model.weights import load_model

LARGEST_SIDE = 32
"""The pixel baselines see larger images averaged down to this many pixels a side: their features would not fit in memory."""
PCA_IMAGES = 20_000


@dataclass(frozen=True)
class Candidate:
    """One representation at one timestep (None where it has none); `features` gives a split's (N, D) float32."""

    representation: str
    t: int | None
    features: Callable[[SplitName], Floats]


def candidates(settings: ProbeSettings, dataset: Dataset, model: Artifact, embedded: Artifact) -> Iterator[Candidate]:
    """Every candidate, DiER's timesteps first. Features are computed when asked for; the denoiser's are kept for one t."""
    facts = embedded.json("embeddings.json")
    for t in facts["timesteps"]:
        yield Candidate("dier", t, lambda split, t=t: store.read(embedded, split, t))  # type: ignore[misc]
    network = load_model(model.path)
    if "pixels" in settings.baselines:
        yield Candidate("pixels", None, lambda split: _pixels(dataset, split))
    if "pca" in settings.baselines:
        yield Candidate("pca", None, _pca(dataset, network.config.embed_dim, settings.seed))
    if "untrained" in settings.baselines:
        fresh = DiER(network.config).eval()  # the very weights that training began with; they do not look at t yet
        yield Candidate("untrained", None, lambda split: embed(fresh, dataset.split(split).images, 0))
    if "denoiser" in settings.baselines:
        yield from _denoiser(settings, dataset, network)


def denoiser_blocks(chosen: list[int] | None, depth: int) -> list[int]:
    """Which blocks to probe: the given ones, or up to three evenly spaced. Raises SettingsError for one that is not there."""
    if chosen is None:
        return sorted({depth * k // 4 for k in (1, 2, 3)})
    if missing := [block for block in chosen if block >= depth]:
        raise SettingsError(
            f"probe.denoiser_blocks = {chosen}: block {missing[0]} does not exist, the denoiser has 0 .. {depth - 1}"
        )
    return chosen


def _denoiser(settings: ProbeSettings, dataset: Dataset, network: DiER) -> Iterator[Candidate]:
    blocks = denoiser_blocks(settings.denoiser_blocks, network.config.depth)
    kept: dict[tuple[int, SplitName], dict[int, Floats]] = {}

    def features(split: SplitName, block: int, t: int) -> Floats:
        if (t, split) not in kept:  # one pass gives every block; those of another t are not needed again until test
            for other in [place for place in kept if place[0] != t]:
                del kept[other]
            layers = denoiser_layers(network, dataset.split(split).images, t, seed=settings.seed)
            kept[t, split] = {block: layers[block] for block in blocks}
        return kept[t, split][block]

    for t in settings.baseline_timesteps:
        for block in blocks:
            yield Candidate(f"denoiser_block{block}", t, lambda split, b=block, t=t: features(split, b, t))  # type: ignore[misc]


def _pixels(dataset: Dataset, split: SplitName) -> Floats:
    images = dataset.split(split).images
    side = tuple(min(size, LARGEST_SIDE) for size in images.shape[1:3])
    parts = []
    for start in range(0, len(images), 1000):
        x = to_tensor(images[start : start + 1000])
        if tuple(x.shape[2:]) != side:
            x = torch.nn.functional.adaptive_avg_pool2d(x, side)
        parts.append(x.flatten(1).numpy())
    return np.concatenate(parts)


def _pca(dataset: Dataset, size: int, seed: int) -> Callable[[SplitName], Floats]:
    fitted: list[PCA] = []

    def features(split: SplitName) -> Floats:
        if not fitted:
            x = _pixels(dataset, "train")
            x = x[np.random.default_rng(seed).permutation(len(x))[:PCA_IMAGES]]
            solver = "full" if x.shape[1] <= 1024 else "randomized"
            fitted.append(PCA(min(size, *x.shape), svd_solver=solver, random_state=seed).fit(x))
        return np.asarray(fitted[0].transform(_pixels(dataset, split)), np.float32)

    return features
