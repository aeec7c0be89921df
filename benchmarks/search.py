"""Nearest neighbours: recall and time of faiss's indexes against comparing all. Embeddings are those of a file of embed-images.

    OMP_NUM_THREADS=1 python -m benchmarks.search EMBEDDINGS.parquet --queries 1000

Queries are rows drawn at random, each without itself. `dier search --index` uses the line ivf with 32 lists probed. Timed is the
search within a process: not starting it, nor reading an index from its file. For the command there is the shell's `time`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from components.inference.search import Exact, build
from components.inference.vectors import Ints, open_vectors

K = 10


def recall(found: Ints, exact: Ints, queries: Ints) -> float:
    """The share of the K nearest that was found; both (Q, K + 1), of which the query itself is no neighbour."""
    shares = []
    for a, b, own in zip(found.tolist(), exact.tolist(), queries.tolist(), strict=True):
        near, nearest = ([row for row in rows if row != own][:K] for rows in (a, b))
        shares.append(len(set(near) & set(nearest)) / K)
    return float(np.mean(shares))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and how many seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main() -> None:
    """Print a line an index."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--no-hnsw", action="store_true", help="leave out what takes long to make")
    given = parser.parse_args()
    vectors = open_vectors(given.embeddings, None, None)
    rows = np.sort(np.random.default_rng(1).permutation(vectors.count)[: given.queries])
    queries = vectors.rows(rows)
    print(f"{vectors.count} x {vectors.width}, {len(rows)} queries, {faiss.omp_get_max_threads()} threads of faiss")
    _, seconds = timed(lambda: Exact(vectors).search(queries[:1], K + 1))
    print(f"{'reading the file for one query':40} {1000 * seconds:8.0f} ms")

    flat = faiss.IndexFlatIP(vectors.width)
    for _, piece in vectors.pieces():
        flat.add(piece)

    def one_by_one(index: Any) -> Ints:
        return np.concatenate([index.search(query[None], K + 1)[1] for query in queries])

    exact, brute = timed(lambda: one_by_one(flat))
    print(f"{'all, in memory':40} {1000 * brute / len(rows):8.3f} ms a query")

    def line(name: str, index: Any, made: float) -> None:
        found, seconds = timed(lambda: one_by_one(index))
        size = len(faiss.serialize_index(index)) / 2**20
        print(
            f"{name:40} {1000 * seconds / len(rows):8.3f} ms a query, {brute / seconds:6.1f} times as fast, "
            f"recall@{K} {recall(found, exact, rows):.4f}, made in {made:.1f} s, {size:.0f} MiB"
        )

    ivf, made = timed(lambda: build(vectors))
    for probed in (8, 16, 32, 64):
        ivf.nprobe = probed
        line(f"ivf, {ivf.nlist} lists, {probed} probed", ivf, made)
    if given.no_hnsw:
        return
    hnsw = faiss.IndexHNSWFlat(vectors.width, 32, faiss.METRIC_INNER_PRODUCT)
    _, made = timed(lambda: [hnsw.add(piece) for _, piece in vectors.pieces()])
    for depth in (16, 64, 128):
        hnsw.hnsw.efSearch = depth
        line(f"hnsw, 32 links, efSearch {depth}", hnsw, made)


if __name__ == "__main__":
    main()
