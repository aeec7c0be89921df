"""Which pictures are worth comparing pixel by pixel: to each query those with the most similar descriptors.

Up to INDEXED pictures every one is asked (`Exact`). Above, faiss's inverted lists are (`Indexed`, IVF-Flat): k-means cuts the
descriptors into lists, and a query asks the PROBED lists nearest to it. HNSW finds as many, but takes minutes to build where lists
take seconds, and what it builds depends on the order in which threads add to it (docs/validation.md has both measured).

The same descriptors give the same candidates, whatever the number of threads: above INDEXED they are rounded to a grid of 2^-11,
which makes each product a multiple of 2^-22 and each sum, below 4, exact in float32 in any order of summation; and k-means, whose
centres are rounded as well, runs in one thread.
"""

from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from data.groups import Groups
from data.quality.alignment import Floats, Ints

CANDIDATES = 6
"""Pictures verified for each query."""
TILES, TILE = 64, 1024
"""One of every `TILE` references can become a candidate; fewer than TILE where there would not be `TILES` tiles."""
INDEXED = 100_000
"""References above which candidates come from an index. At 100,000 asking each takes as long as comparing pixels does."""
PROBED = 32
"""Lists that a query asks."""
TRAINED_ON = 64
"""Descriptors a list from which k-means learns, drawn with a fixed seed."""
ROUNDS = 10
MOST = CANDIDATES * 4**4
"""Nearest neighbours that an index is asked for at most where those of the query's own group do not count."""
ADDED = 2**16
GRID = np.float32(2**11)


class Candidates(Protocol):
    """References 0 .. N - 1 that can be asked for the most similar ones."""

    indexed: bool

    def search(self, queries: Floats, among: int, groups: tuple[Groups, Groups] | None = None) -> tuple[Floats, Ints]:
        """The cosine of the candidates of each query (Q, F) in the first `among` references, and which they are: both (Q, K).

        They are in order of index. With the `groups` of queries (Q,) and references (N,), only those of another group count.
        """


def candidates(described: Floats) -> Candidates:
    """References with the descriptors (N, F)."""
    return Exact(described) if len(described) <= INDEXED else Indexed(described)


class Exact:
    """Every reference is asked.

    What is given is the most similar one of each tile, and of those the best CANDIDATES. The most similar one of all is always
    among them; a close second is missed only where it shares a tile with a better one.
    """

    indexed = False

    def __init__(self, described: Floats) -> None:
        self._described = described

    def search(self, queries: Floats, among: int, groups: tuple[Groups, Groups] | None = None) -> tuple[Floats, Ints]:
        """See `Candidates`."""
        references = self._described[:among]
        similarity, index = [], []
        rows = np.arange(len(queries))
        tile = min(TILE, -(-len(references) // TILES))
        for start in range(0, len(references), tile):
            cosine = queries @ references[start : start + tile].T  # (Q, tile)
            if groups:
                cosine[groups[0][:, None] == groups[1][start : start + tile]] = -1
            best = cosine.argmax(1)
            similarity.append(cosine[rows, best])
            index.append(best + start)
        all_similarity, all_index = np.stack(similarity, 1), np.stack(index, 1)
        keep = np.sort(np.argsort(-all_similarity, 1, kind="stable")[:, :CANDIDATES], 1)
        return np.take_along_axis(all_similarity, keep, 1), np.take_along_axis(all_index, keep, 1)


class Indexed:
    """The references in the lists nearest to a query are asked: some candidates are missed, fewer the more alike the two are."""

    indexed = True

    def __init__(self, described: Floats) -> None:
        import faiss

        count, width = described.shape
        lists = round(2 * np.sqrt(count))  # so that learning the lists takes time in proportion to the references
        some = np.sort(np.random.default_rng(0).permutation(count)[: TRAINED_ON * lists])
        with threadpool_limits(1):
            means: Any = faiss.Kmeans(width, lists, niter=ROUNDS, seed=0, max_points_per_centroid=TRAINED_ON)
            means.train(_on_grid(described[some]))
        centres = faiss.IndexFlatL2(width)
        centres.add(_on_grid(means.centroids))
        self._faiss: Any = faiss
        self._index = faiss.IndexIVFFlat(centres, width, lists, faiss.METRIC_L2)
        self._index.train(_on_grid(described[:1]))  # its centres are there: this only marks it as trained
        for start in range(0, count, ADDED):
            self._index.add(_on_grid(described[start : start + ADDED]))

    def search(self, queries: Floats, among: int, groups: tuple[Groups, Groups] | None = None) -> tuple[Floats, Ints]:
        """See `Candidates`. An image whose MOST nearest neighbours are all of its own group gets no candidate."""
        queries = _on_grid(queries)
        if groups is None:
            return _in_order(*self._nearest(queries, CANDIDATES, among))
        distance: Floats = np.full((len(queries), CANDIDATES), np.inf, np.float32)
        index: Ints = np.full((len(queries), CANDIDATES), -1)
        rows, count = np.arange(len(queries)), 4 * CANDIDATES
        while len(rows) and count <= MOST:
            apart, found = self._nearest(queries[rows], count, among)
            other = (found >= 0) & (groups[1][found] != groups[0][rows, None])
            first = np.argsort(~other, 1, kind="stable")[:, :CANDIDATES]  # the nearest of another group
            counts = np.take_along_axis(other, first, 1)
            distance[rows] = np.where(counts, np.take_along_axis(apart, first, 1), np.inf)
            index[rows] = np.where(counts, np.take_along_axis(found, first, 1), -1)
            rows = rows[~counts[:, -1] & (found[:, -1] >= 0)]  # too few, and there are more to be had
            count *= 4
        return _in_order(distance, index)

    def _nearest(self, queries: Floats, count: int, among: int) -> tuple[Floats, Ints]:
        """Squared distances of the nearest references, nearest first, and which they are (-1 where there are fewer): (Q, count)."""
        selected = self._faiss.IDSelectorRange(0, among) if among < self._index.ntotal else None
        parameters = self._faiss.SearchParametersIVF(nprobe=PROBED, sel=selected)
        distance, index = self._index.search(queries, count, params=parameters)
        return distance, index


def _in_order(distance: Floats, index: Ints) -> tuple[Floats, Ints]:
    """Cosines of unit vectors at squared distances, and their references, in order of index; -1 and 0 where there is none."""
    similarity = np.where(index >= 0, 1 - distance / 2, np.float32(-1))
    order = np.argsort(index, 1, kind="stable")
    return np.take_along_axis(similarity, order, 1), np.maximum(np.take_along_axis(index, order, 1), 0)


def _on_grid(described: Floats) -> Floats:
    rounded: Floats = np.ascontiguousarray(np.round(described * GRID) / GRID, np.float32)
    return rounded
