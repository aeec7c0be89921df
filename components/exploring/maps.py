"""The 2-D map of the embeddings at each t, turned so that what stays alike stays in its place, and kept for the next time.

Each map is a t-SNE of its own, begun from PCA. To begin each from the one before gives no smaller steps once they are turned
(docs/using.md has both measured), so they need not wait for each other and none depends on which t were exported beside it.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.linalg import orthogonal_procrustes

from components.common.artifact import digest
from components.common.progress import say, track
from components.embedding import store
from components.exploring.explored import Explored
from components.inference.output import whole_file
from components.reporting.projection import Floats, flat_map, one_thread

KIND = "dier-maps-1"
"""Another way of making them gets another number."""

Maps = dict[int, Floats]
"""By timestep, ascending: (n, 2), of mean 0 and root mean square radius 1."""


def maps_of(explored: Explored, cache: Path) -> Maps:
    """The maps of the images `explored.rows`: from the folder `cache` where they were made before, else made and put there."""
    made_of = {"kind": KIND, "embeddings": explored.embedded.fingerprint, "split": explored.split.name}
    file = cache / f"{digest(made_of | {'rows': explored.rows.tolist()})[:32]}.safetensors"
    try:
        found = load_file(file)
        with suppress(OSError):
            file.touch()  # dier clean asks how long it was not used
        return {t: found[str(t)] for t in explored.timesteps}
    except (FileNotFoundError, SafetensorError, KeyError):
        pass
    say(f"maps of {len(explored.rows)} images, kept in {file}")
    maps = make(explored)
    with whole_file(file) as beside:
        save_file({str(t): np.ascontiguousarray(places) for t, places in maps.items()}, beside)
    return maps


def make(explored: Explored) -> Maps:
    """Draw each map, and turn it towards the one before."""
    maps: Maps = {}
    before: Floats | None = None
    with one_thread():
        for t in track(explored.timesteps, len(explored.timesteps), "maps", "t"):
            places = levelled(flat_map(store.read(explored.embedded, explored.split.name, t, explored.rows)))
            before = maps[t] = places if before is None else turned(places, before)
    return maps


def levelled(places: Floats) -> Floats:
    """A map (n, 2) about its mean, at a root mean square radius of 1: t-SNE's own size and place mean nothing."""
    centred = places - places.mean(axis=0)
    radius = float(np.sqrt((centred**2).sum(axis=1).mean()))
    return np.asarray(centred / (radius or 1.0), np.float32)


def turned(places: Floats, towards: Floats) -> Floats:
    """A levelled map (n, 2), turned and mirrored so as to lie on another of the same images as closely as it can (Procrustes)."""
    rotation, _ = orthogonal_procrustes(places, towards)
    return np.asarray(places @ rotation, np.float32)
