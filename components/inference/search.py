"""`dier search`: the rows of embeddings that are nearest to an image, or to one of their rows, by cosine.

A single question is answered from the file as it is, a piece at a time: that is exact, and less work than any index is to make (of
an artifact the files that are searched are checked first). With `--index FILE` there is an index of faiss's, made by the first
question and used by the later ones: inverted lists over the whole vectors (IVF-Flat). HNSW takes many times as long to make
(docs/using.md has both measured).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from components.common.artifact import digest
from components.common.errors import SettingsError
from components.common.progress import say
from components.inference.output import whole_file
from components.inference.registered_model import RegisteredModel, load
from components.inference.vectors import Floats, Ints, Vectors, open_vectors, unit
from data.named_images import read_picture

KIND = "dier-index-1"
"""What an index file says that it is; another way of making one gets another number."""
TRAINED_ON = 64
"""Vectors a list from which k-means learns where the lists are."""
PROBED = 32
"""Lists that a question looks at. Of sqrt(N) lists that is a tenth at 100,000 vectors, a thirtieth at a million."""


class Index(Protocol):
    """Vectors that can be asked for the nearest ones."""

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """The k largest cosines with each unit vector (Q, D) and their rows, both (Q, k), best first; -1 where there are fewer."""


def search(
    embeddings: Path,
    *,
    rows: Sequence[int],
    images: Sequence[Path],
    k: int,
    model: str | None,
    split: str | None,
    t: int | None,
    index: Path | None,
    fit: bool,
) -> list[dict[str, Any]]:
    """For each of `rows`, then of `images`, its k nearest rows (itself left out): query, rank, cosine, index, and what the row is.

    Raises SettingsError for a row, split, t or model that does not fit, ArtifactError for files that are no embeddings, DataError
    for an image that cannot be read.
    """
    vectors = open_vectors(embeddings, split, t)
    if index is None:
        vectors.check()
    found = Exact(vectors) if index is None else open_index(index, vectors)
    queries = [vectors.rows(np.asarray(rows, np.int64))]
    if images:
        queries.append(_embed(vectors, images, model, fit))
    names = [*map(str, rows), *map(str, images)]
    kept = others(found, np.concatenate(queries), [*rows, *(-1 for _ in images)], min(k, vectors.count))
    hits = [
        {"query": name, "rank": rank, "cosine": cosine, "index": row}
        for name, near in zip(names, kept, strict=True)
        for rank, (row, cosine) in enumerate(near, 1)
    ]
    told = vectors.described(np.array([hit["index"] for hit in hits], np.int64))
    return [hit | what for hit, what in zip(hits, told, strict=True)]


def others(index: Index, queries: Floats, own: Sequence[int], k: int) -> list[list[tuple[int, float]]]:
    """Of each unit vector (Q, D) the k nearest rows with their cosines, best first, but for its `own` row (-1: it is none)."""
    cosines, rows = index.search(queries, k + 1)
    found = zip(own, rows.tolist(), cosines.tolist(), strict=True)
    return [[(row, c) for row, c in zip(near, far, strict=True) if row not in (itself, -1)][:k] for itself, near, far in found]


@dataclass(frozen=True)
class Exact:
    """Every vector is compared, as it is read: nothing is held but a piece and the best so far."""

    vectors: Vectors

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """See `Index`."""
        best = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for index, piece in self.vectors.pieces():
            cosines = np.concatenate([best, queries @ piece.T], axis=1)
            numbers = np.concatenate([rows, np.broadcast_to(index, (len(queries), len(index)))], axis=1)
            chosen = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            best, rows = (np.take_along_axis(values, chosen, 1) for values in (cosines, numbers))
        return best, rows


def open_index(file: Path, vectors: Vectors) -> Any:
    """The index in `file`, made where there is none or it is one of other embeddings. It is faiss's own, an `Index`."""
    import faiss

    made_of = digest({"kind": KIND} | vectors.source)
    try:
        with safe_open(file, "np") as opened:
            told = opened.metadata() or {}
            if told.get("made_of") == made_of:
                return _probing(faiss.deserialize_index(opened.get_tensor("index")))
        if told.get("kind") != KIND:
            raise SettingsError(f"--index {file} is no index of dier search: name another file, or remove it")
        say(f"{file}: an index of other embeddings, made again")
    except RuntimeError:  # faiss's
        say(f"{file}: a damaged index, made again")
    except FileNotFoundError:
        pass
    except SafetensorError as error:
        raise SettingsError(f"--index {file} is no index of dier search ({error}): name another file, or remove it") from error
    vectors.check()
    index = build(vectors)
    with whole_file(file) as beside:
        save_file({"index": faiss.serialize_index(index)}, beside, {"kind": KIND, "made_of": made_of})
    say(f"{file}: an index of {vectors.count} embeddings")
    return _probing(index)


def build(vectors: Vectors) -> Any:
    """Inverted lists, sqrt(N) of them, found by k-means on a sample of the vectors that is drawn with a fixed seed."""
    import faiss

    lists = max(1, round(vectors.count**0.5))
    sample = np.sort(np.random.default_rng(0).permutation(vectors.count)[: lists * TRAINED_ON])
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.width), vectors.width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # else it warns of small sets
    index.train(vectors.rows(sample))
    for rows, piece in vectors.pieces():
        index.add_with_ids(piece, rows)
    return index


def _probing(index: Any) -> Any:
    index.nprobe = PROBED
    return index


def _embed(vectors: Vectors, images: Sequence[Path], name: str | None, fit: bool) -> Floats:
    """Unit vectors (n, D) of pictures, by the model that made the embeddings."""
    name = name or vectors.version
    if name is None:
        raise SettingsError(f"{vectors.path} does not say which registered model made it: give --model to search by an image")
    model: RegisteredModel = load(name)
    vectors.check_made_by(model)
    pixels = np.stack([read_picture(image, model.shape, fit_shape=fit) for image in images])
    return unit(model.predict(pixels)["embedding"])
