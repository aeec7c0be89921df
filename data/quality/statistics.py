"""Statistics of each image and of a split's labels, a block of images at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.format import Split, image_hash
from data.quality.blocks import at_once, blocks_in

BLOCK_BYTES = 8 * 2**20
"""Pixels read at a time; the working memory is about ten times this (wide integers), whatever the size of the set."""

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("mean", pa.float64()),
        ("std", pa.float64()),
        ("min", pa.int64()),
        ("max", pa.int64()),
        ("saturated_share", pa.float64()),
        ("hash", pa.string()),
    ]
)
"""A row an image. Grey levels are 0 .. 255; `label` is null for multi-label sets; `hash` is BLAKE2b-128 of the image's bytes."""


def image_statistics(split: Split) -> pa.Table:
    """The statistics of every image of a split, in its order: a table with SCHEMA."""
    blocks = [block_statistics(split.images[rows]) for rows in blocks_in(split, at_once(split, BLOCK_BYTES))]
    hashes = pa.chunked_array([block.pop("hash") for block in blocks], pa.string()).combine_chunks()
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return pa.table(
        {
            "split": pa.repeat(pa.scalar(split.name, pa.string()), len(split)),
            "index": np.arange(len(split)),
            "label": _one_label(split.labels),
            **columns,
            "hash": hashes,
        },
        schema=SCHEMA,
    )


def block_statistics(images: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """The statistics of images (B, H, W, C), by the names of SCHEMA, without split, index and label: (B,) each."""
    pixels = images.reshape(len(images), -1)  # (B, H * W * C)
    count = pixels.shape[1]
    # Sums of integers are exact, so a constant image has a standard deviation of exactly 0, in any order of summation.
    total = pixels.sum(1, dtype=np.int64)
    squares = np.square(pixels, dtype=np.uint16).sum(1, dtype=np.int64)  # 255 squared still fits in 16 bits
    return {
        "mean": total / count,
        "std": np.sqrt(count * squares - total**2) / count,
        "min": pixels.min(1).astype(np.int64),
        "max": pixels.max(1).astype(np.int64),
        "saturated_share": (pixels == 255).mean(1),
        "hash": pa.array([image_hash(image) for image in pixels], pa.string()),
    }


def _one_label(labels: npt.NDArray[Any]) -> pa.Array:
    """Labels as nullable integers; null where an image has several labels or none that is a finite number."""
    if labels.ndim != 1 or labels.dtype.kind not in "iufb":
        return pa.nulls(len(labels), pa.int64())
    finite = np.isfinite(labels)
    return pa.array(np.where(finite, labels, 0).astype(np.int64), mask=~finite)


def class_counts(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """Images of each class, or with each label set for (N, L) labels: (classes,). Labels out of range are not counted."""
    if labels.dtype.kind not in "iufb":
        return np.zeros(classes, np.int64)
    if labels.ndim == 1:
        inside = labels[(labels >= 0) & (labels < classes) & (labels == np.floor(labels))]
        return np.bincount(inside.astype(np.int64), minlength=classes)
    counts = np.zeros(classes, np.int64)
    present = (labels == 1).sum(0)[:classes]
    counts[: len(present)] = present
    return counts


def bad_labels(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.bool_]:
    """Which images carry a label that is no number of the range: (N,). The range is 0 .. classes - 1, or 0 .. 1 for (N, L)."""
    if labels.dtype.kind not in "iufb":
        return np.ones(len(labels), bool)
    top = classes - 1 if labels.ndim == 1 else 1
    inside = (labels >= 0) & (labels <= top) & (labels == np.floor(labels))  # false for NaN and the infinities
    bad: npt.NDArray[np.bool_] = ~inside.reshape(len(labels), -1).all(1)
    return bad


def copies(hashes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which images are copies of an earlier one, by their numbers from `numbered`: (N,)."""
    copy = np.ones(len(hashes), bool)
    copy[np.unique(hashes, return_index=True)[1]] = False
    return copy


def numbered(table: pa.Table) -> npt.NDArray[np.int32]:
    """A number for each image's hash, equal ones for copies: (N,), from 0 up."""
    found: npt.NDArray[np.int32] = table.column("hash").combine_chunks().dictionary_encode().indices.to_numpy()
    return found


def write(path: Path, table: pa.Table) -> None:
    """Write a table of statistics as Parquet, without anything of its maker in its metadata."""
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")
