"""How well near-duplicates are told from look-alikes: python benchmarks/near_duplicates.py [--index] DATASET [DATASET ...]

For each dataset artifact: the share of its own test images with a near-duplicate in train, at several distances, and how many of
1,000 training images are found again (as themselves, not as another image) after they were re-encoded, flipped, shifted, made
brighter, or all of these. With --index instead: the candidates that faiss's inverted lists (IVF-Flat) and its graph (HNSW) give,
held against those of asking every reference: the share of the pairs below the distance that are found, and seconds of one thread.
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
from PIL import Image
from threadpoolctl import threadpool_limits

from data.format import Dataset, Split, open_dataset
from data.quality import near_duplicates
from data.quality.alignment import Floats, Ints
from data.quality.candidates import Candidates, Exact, Indexed, _on_grid
from data.quality.descriptors import descriptors_of
from data.quality.near_duplicates import References

Images = npt.NDArray[np.uint8]
DISTANCES = (0.04, 0.06, 0.08, 0.10, 0.12, 0.15)
PLANTED = 1000
DISTANCE = 0.08
QUERIES, REAL = 300, 2000
"""Planted images of each kind, and test images as they are, that are asked of each index."""


def re_encoded(images: Images, quality: int) -> Images:
    """Each image through JPEG."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        out[i] = np.asarray(Image.open(file)).reshape(image.shape)
    return out


def shifted(images: Images, down: int, right: int) -> Images:
    """Each image moved, its border repeated."""
    height, width = images.shape[1:3]
    return np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")[:, 1 + down :, 1 + right :][:, :height, :width]


def brighter(images: Images) -> Images:
    """10 % and 10 grey levels brighter, clipped."""
    return np.clip(images * 1.1 + 10, 0, 255).round().astype(np.uint8)


KINDS: dict[str, Callable[[Images], Images]] = {
    "JPEG, quality 75": lambda x: re_encoded(x, 75),
    "JPEG, quality 50": lambda x: re_encoded(x, 50),
    "flipped left-right": lambda x: x[:, :, ::-1],
    "flipped top-bottom": lambda x: x[:, ::-1],
    "shifted 1 pixel along one axis": lambda x: shifted(x, 0, 1),
    "shifted 1 pixel along both": lambda x: shifted(x, 1, 1),
    "brighter": brighter,
    "all: shift, flip, brighter, JPEG 80": lambda x: re_encoded(brighter(shifted(x, 1, -1)[:, :, ::-1]), 80),
}


def shares(flags: npt.NDArray[np.float64], size: int) -> str:
    """The share below each distance, in percent."""
    return " ".join(f"{100 * (flags < distance).sum() / size:7.2f}" for distance in DISTANCES)


class Graph(Indexed):
    """HNSW in the place of the inverted lists, built by one thread: by several, it depends on the order in which they add."""

    def __init__(self, described: Floats, width: int, depth: int) -> None:
        self._index = faiss.IndexHNSWFlat(described.shape[1], width)
        self._index.hnsw.efConstruction, self._index.hnsw.efSearch = 2 * width, depth
        self._index.add(_on_grid(described))

    def _nearest(self, queries: Floats, count: int, among: int) -> tuple[Floats, Ints]:
        return self._index.search(queries, count)


def compare_indices(dataset: Dataset) -> None:
    """Print, for each way to find candidates, the share of near-duplicates found and what it costs."""
    train, test = dataset.split("train"), dataset.split("test")
    picked = np.sort(np.random.default_rng(0).permutation(len(train))[:QUERIES])
    asked = {kind: split_of(change(train.images[picked])) for kind, change in KINDS.items()}
    asked["test images as they are"] = split_of(test.images[:REAL])
    faiss.omp_set_num_threads(1)
    described = descriptors_of(train)
    exact: dict[str, set[tuple[int, int]]] = {}
    print(f"\n{dataset.info.name}: {len(train)} references, percent of the pairs below {DISTANCE} that are found")
    for name, build in WAYS.items():
        with threadpool_limits(1):
            start = time.process_time()
            way = build(described)
            built, start = time.process_time() - start, time.process_time()
            found = {kind: pairs_of(References([train], way), queries) for kind, queries in asked.items()}
            seconds, count = time.process_time() - start, sum(len(queries) for queries in asked.values())
        exact = exact or found
        shares = [100 * len(found[kind] & exact[kind]) / max(1, len(exact[kind])) for kind in asked]
        print(
            f"{name:28}"
            + " ".join(f"{share:6.2f}" for share in shares)
            + f" | {built:6.1f} s, {1000 * seconds / count:.2f} ms a query"
        )
    print("columns: " + "; ".join(f"{kind} ({len(exact[kind])})" for kind in asked))


def split_of(images: Images) -> Split:
    """Queries."""
    return Split("test", np.ascontiguousarray(images), np.zeros(len(images), np.int64))


def pairs_of(references: References, queries: Split) -> set[tuple[int, int]]:
    """Query and counterpart of each pair."""
    return {(pair.index, pair.other_index) for pair in references.find(queries, DISTANCE) if pair}


WAYS: dict[str, Callable[[Floats], Candidates]] = {
    "every reference": Exact,
    "lists, 32 asked (used)": Indexed,
    "graph, M 16, ef 64": lambda described: Graph(described, 16, 64),
    "graph, M 32, ef 64": lambda described: Graph(described, 32, 64),
}


def main() -> None:
    """Print a table for each dataset."""
    if sys.argv[1:2] == ["--index"]:
        for path in sys.argv[2:]:
            compare_indices(open_dataset(Path(path)))
        return
    for path in sys.argv[1:]:
        dataset = open_dataset(Path(path))
        train, test = dataset.split("train"), dataset.split("test")
        print(f"\n{dataset.info.name}: {len(train)} training images of {' x '.join(map(str, dataset.info.image_shape))}")
        print(f"{'percent found below a distance of':38}" + " ".join(f"{distance:7.2f}" for distance in DISTANCES))
        start = time.perf_counter()
        pairs = [pair for pair in near_duplicates.find(test, [train], 1.0) if pair]
        seconds = time.perf_counter() - start
        print(
            f"{'test images as they are':38}" + shares(np.array([pair.distance for pair in pairs]), len(test)), f"({seconds:.0f} s)"
        )
        picked = np.sort(np.random.default_rng(0).permutation(len(train))[:PLANTED])
        for kind, change in KINDS.items():
            planted = Split("test", np.ascontiguousarray(change(train.images[picked])), np.zeros(len(picked), np.int64))
            again = [
                pair for pair in near_duplicates.find(planted, [train], 1.0) if pair and pair.other_index == picked[pair.index]
            ]
            print(f"{kind:38}" + shares(np.array([pair.distance for pair in again]), len(picked)))


if __name__ == "__main__":
    main()
