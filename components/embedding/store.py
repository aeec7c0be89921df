"""The embeddings artifact: Parquet a split and timestep, a file for each shard of the images, a piece at a time.

`{split}/t{t:03d}.parquet` where the images of a split lie in one file, `{split}/t{t:03d}/{shard:05d}.parquet` where in several.
Successive rows are successive images; the column `index` counts from the split's first image, in every file.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.common.artifact import Artifact
from components.common.errors import ArtifactError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

PART = "embeddings-part"
"""Kind of an artifact with the embeddings of some shards alone: nobody but the join takes it for embeddings."""
SELECTION = "selection.json"
"""How the timesteps were chosen, where embed.timesteps was auto."""
PIECE = 4096
"""Rows read at a time."""


def file_of(folder: Path, split: str, t: int, shard: int | None = None) -> Path:
    """Where the embeddings of a split at t are written, or of one shard of it where its images lie in several."""
    place = folder / split / f"t{t:03d}"
    return place.with_suffix(".parquet") if shard is None else place / f"{shard:05d}.parquet"


def files_of(folder: Path, split: str, t: int) -> list[Path]:
    """The files with the embeddings of a split at t, in the order of the images; [] where there are none."""
    whole = file_of(folder, split, t)
    if whole.is_file():
        return [whole]
    return sorted(whole.with_suffix("").glob("*.parquet"), key=lambda file: (len(file.name), file.name))  # 100000 after 99999


class Writer:
    """Writes a file of embeddings piece by piece; its first image is the split's image `first`. No piece, no file."""

    def __init__(self, file: Path, dtype: str, first: int = 0) -> None:
        self._file, self._dtype, self._next = file, dtype, first
        self._opened: pq.ParquetWriter | None = None

    def add(self, labels: npt.NDArray[Any], piece: Floats) -> None:
        """Add the embeddings (n, D) of the next images beside their labels (n,) or (n, L)."""
        index = np.arange(self._next, self._next + len(piece))
        columns = [pa.array(index), _column(labels), _column(piece.astype(self._dtype))]
        table = pa.table(columns, names=["index", "label", "embedding"])
        if self._opened is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # floats of a network do not compress; a dictionary of them would only cost time
            self._opened = pq.ParquetWriter(self._file, table.schema, compression="none", use_dictionary=False)
        self._opened.write_table(table)
        self._next += len(piece)

    def close(self) -> None:
        """End the file."""
        if self._opened is not None:
            self._opened.close()


def write(file: Path, labels: npt.NDArray[Any], pieces: Iterable[Floats], dtype: str, first: int = 0) -> None:
    """Write embeddings (n, D) piece by piece beside their labels (N,) or (N, L), which are this file's own."""
    start = 0
    with closing(Writer(file, dtype, first)) as writer:
        for piece in pieces:
            writer.add(labels[start : start + len(piece)], piece)
            start += len(piece)


def read(embedded: Artifact, split: str, t: int, rows: Ints | None = None) -> npt.NDArray[np.float32]:
    """The embeddings of a split at t: (N, D) float32, or (n, D) of the images `rows` alone, ascending image numbers.

    Raises ArtifactError where the artifact has none, or not those of `rows`.
    """
    files = files_of(embedded.path, split, t)
    if not files:
        raise ArtifactError(
            f"no embeddings of split {split} at t = {t} in {embedded.path}: add them to embed.splits and embed.timesteps"
        )
    number = sum(pq.read_metadata(file).num_rows for file in files) if rows is None else len(rows)
    width = pq.read_schema(files[0]).field("embedding").type.list_size
    out = np.empty((number, width), np.float32)
    done = 0
    for index, vectors in pieces(files, rows):
        if rows is not None:
            here = rows[np.searchsorted(rows, index[0]) : np.searchsorted(rows, index[-1], "right")]
            vectors = vectors[np.isin(index, here)]
        out[done : done + len(vectors)] = vectors
        done += len(vectors)
    if done < number:
        raise ArtifactError(
            f"{embedded.path} has {done} of {number} images asked for of split {split} at t = {t}: "
            "embed the dataset whose images they are, all of its shards"
        )
    return out


def pieces(files: Sequence[Path], rows: Ints | None = None) -> Iterator[tuple[Ints, npt.NDArray[np.float32]]]:
    """Yield (index (n,), embeddings (n, D)) of successive images of the files of a split at one timestep, in bounded memory.

    With `rows` (ascending image numbers) only the pieces that hold one of them are read; they hold others too.
    """
    for file in files:
        with pq.ParquetFile(file) as opened:
            groups = range(opened.num_row_groups) if rows is None else _groups(opened.metadata, rows)
            for batch in opened.iter_batches(PIECE, row_groups=groups, columns=["index", "embedding"]):
                flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
                yield batch.column("index").to_numpy(), flat.reshape(batch.num_rows, -1).astype(np.float32)


def _groups(metadata: pq.FileMetaData, rows: Ints) -> list[int]:
    """The row groups of a file that hold one of the images `rows`."""
    found = []
    for group in range(metadata.num_row_groups):
        index = metadata.row_group(group).column(0).statistics
        if np.searchsorted(rows, index.min) < np.searchsorted(rows, index.max, "right"):
            found.append(group)
    return found


def _column(values: npt.NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
