"""The embeddings artifact: one Parquet file a split and timestep, written and read a piece at a time."""

from collections.abc import Iterable, Iterator
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

PIECE = 4096
"""Rows read at a time."""


def file_of(folder: Path, split: str, t: int) -> Path:
    """Where the embeddings of a split at t are."""
    return folder / split / f"t{t:03d}.parquet"


def write(file: Path, labels: npt.NDArray[Any], pieces: Iterable[Floats], dtype: str) -> None:
    """Write embeddings (n, D) piece by piece, in the dataset's order, beside their labels (N,) or (N, L)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer, start = None, 0
    for piece in pieces:
        some = labels[start : start + len(piece)]
        columns = [pa.array(np.arange(start, start + len(piece))), _column(some), _column(piece.astype(dtype))]
        table = pa.table(columns, names=["index", "label", "embedding"])
        if writer is None:
            # floats of a network do not compress; a dictionary of them would only cost time
            writer = pq.ParquetWriter(file, table.schema, compression="none", use_dictionary=False)
        writer.write_table(table)
        start += len(piece)
    if writer is not None:
        writer.close()


def read(embeddings: Artifact, split: str, t: int) -> npt.NDArray[np.float32]:
    """The embeddings of a split at t: (N, D) float32. Raises ArtifactError where the artifact has none."""
    file = file_of(embeddings.path, split, t)
    if not file.is_file():
        raise ArtifactError(
            f"no embeddings of split {split} at t = {t} in {embeddings.path}: add them to embed.splits and embed.timesteps"
        )
    metadata = pq.read_metadata(file)
    width = metadata.schema.to_arrow_schema().field("embedding").type.list_size
    out = np.empty((metadata.num_rows, width), np.float32)
    for index, vectors in pieces(file):
        out[index] = vectors
    return out


def pieces(file: Path) -> Iterator[tuple[Ints, npt.NDArray[np.float32]]]:
    """Yield (index (n,), embedding (n, D)) of successive rows of one embeddings file."""
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(PIECE, columns=["index", "embedding"]):
            flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
            yield batch.column("index").to_numpy(), flat.reshape(batch.num_rows, -1).astype(np.float32)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
