"""One shard: a Parquet file with the columns `index` (an image's place in the split), `label`, and `image` as fixed-size binary.

Uncompressed and without statistics, so that decoding is one copy; in row groups of some MB, so that a few images cost a few MB. All
that reads Parquet reads it. docs/data.md says why it is Parquet.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError

Images = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
GROUP_BYTES = 4 * 2**20
"""Pixels a row group: what is decoded for one image, and held of a shard."""
CURE = "remove it and prepare the data again"


def encode(images: Images, labels: npt.NDArray[Any], first: int) -> Any:
    """Images (n, H, W, C) and labels (n,) or (n, L) as a Parquet file, an Arrow buffer. The same values give the same bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    pixels = pa.binary(prod(images.shape[1:]))
    label = pa.array(labels.reshape(-1))
    if labels.ndim == 2:
        label = pa.FixedSizeListArray.from_arrays(label, labels.shape[1])
    columns = {
        "index": pa.array(np.arange(first, first + len(images))),
        "label": label,
        "image": pa.FixedSizeBinaryArray.from_buffers(pixels, len(images), [None, pa.py_buffer(np.ascontiguousarray(images))]),
    }
    schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()])
    sink = pa.BufferOutputStream()
    parquet.write_table(
        pa.table(columns, schema),
        sink,
        row_group_size=max(1, GROUP_BYTES // prod(images.shape[1:])),
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )
    return sink.getvalue()


def runs(values: Ints) -> Iterator[tuple[int, slice]]:
    """Successive equal values: each value, and where it stands."""
    cuts = (np.flatnonzero(np.diff(values)) + 1).tolist()
    for start, stop in zip([0, *cuts], [*cuts, len(values)], strict=True) if len(values) else ():
        yield int(values[start]), slice(start, stop)


class Content:
    """A shard that was read, `shape` (n, H, W, C); its row groups are decoded when they are wanted, and the last one is held.

    Raises DataError where it holds other images, or is no Parquet.
    """

    def __init__(self, content: Any, shape: tuple[int, ...], place: str) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._shape, self._place, self._size = shape[1:], place, prod(shape[1:])
        self._lock, self._last = threading.Lock(), (-1, np.empty(0, np.uint8))
        with self._reading():
            self._file = parquet.ParquetFile(pa.BufferReader(content))
            kind, groups = self._file.schema_arrow.field("image").type, self._file.metadata.num_row_groups
            ends = np.cumsum([0] + [self._file.metadata.row_group(number).num_rows for number in range(groups)])
        if kind != pa.binary(self._size) or ends[-1] != shape[0]:
            found = f"{ends[-1]} images of {kind}"
            raise DataError(f"the shard {place} holds {found} where {shape[0]} of {self._size} bytes are expected; {CURE}")
        self._firsts = ends[:-1]

    def copy(self, rows: Ints, target: Images) -> None:
        """Copy the images at these ascending rows of the shard to `target`; a run of them in one copy."""
        with self._lock:  # Arrow's readers are for one thread at a time
            for number, here in runs(np.searchsorted(self._firsts, rows, side="right") - 1):
                if number != self._last[0]:
                    self._last = number, self._group(number)
                inside = rows[here] - self._firsts[number]
                if inside[-1] - inside[0] == len(inside) - 1 and np.all(np.diff(inside) == 1):
                    target[here] = self._last[1][inside[0] : inside[0] + len(inside)]
                else:
                    np.take(self._last[1], inside, axis=0, out=target[here], mode="clip")  # none is beyond; "raise" would buffer

    def _group(self, number: int) -> Images:
        with self._reading():
            column = self._file.read_row_group(number, ["image"], use_threads=False).column("image").combine_chunks()
        count = self._file.metadata.row_group(number).num_rows
        if len(column) != count or column.null_count:
            raise DataError(f"the shard {self._place} lacks images; {CURE}")
        flat = np.frombuffer(column.buffers()[1], np.uint8, count * self._size, column.offset * self._size)
        return flat.reshape(count, *self._shape)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Arrow raises of many kinds
            said = " ".join(str(error).split())
            raise DataError(f"cannot read the shard {self._place} ({said}); {CURE}") from error
