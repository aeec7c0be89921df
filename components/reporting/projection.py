"""Embeddings, read a piece at a time: a sample of images, the nearest neighbours in a split, a flat map."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from components.embedding.store import Ints, pieces

Floats = npt.NDArray[np.float32]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: with several threads the last bits, and so a t-SNE, would differ from run to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def sample(count: int, most: int, seed: int = 0) -> Ints:
    """At most `most` of `count` row numbers, ascending, the same ones each time."""
    chosen: Any = np.random.default_rng(seed).choice(count, min(count, most), replace=False)
    return np.sort(chosen).astype(np.int64)


def nearest(queries: Floats, files: Sequence[Path], k: int) -> Ints:
    """Image numbers (n, k) of the k images of `files` nearest to each query (n, D) by cosine, nearest first; -1 beyond the last."""
    unit = _unit(queries)
    best = np.full((len(queries), k), -np.inf, np.float32)
    best_index = np.full((len(queries), k), -1)
    for index, v in pieces(files):
        cosine = unit @ _unit(v).T
        better = np.flatnonzero((cosine > best[:, -1:]).any(1))  # few after the first pieces: only those are sorted
        if not len(better):
            continue
        all_cosine = np.concatenate([best[better], cosine[better]], axis=1)
        numbers = np.concatenate([best_index[better], np.broadcast_to(index, (len(better), len(index)))], axis=1)
        order = np.argsort(-all_cosine, axis=1, kind="stable")[:, :k]
        best[better], best_index[better] = np.take_along_axis(all_cosine, order, 1), np.take_along_axis(numbers, order, 1)
    return best_index


def flat_map(v: Floats, seed: int = 0) -> Floats:
    """t-SNE of embeddings (n, D) to (n, 2), started from PCA; call inside `one_thread`. n must be at least 4."""
    from sklearn.manifold import TSNE

    if np.ptp(v, axis=0).max() == 0:  # a collapsed encoder: every image at one place, where t-SNE would divide by zero
        return np.zeros((len(v), 2), np.float32)
    perplexity = min(30.0, (len(v) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(v.astype(np.float64))
    return np.asarray(found, np.float32)


def _unit(v: Floats) -> Floats:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12), np.float32)
