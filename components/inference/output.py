"""What is written for people who use a model: files that are whole or absent, and Parquet among them, a few rows at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.common.errors import SettingsError
from data.named_images import Origin
from model.atomic import fsync, leftovers, temporary

METADATA = b"dier"
"""The key of a Parquet schema's metadata that holds `RegisteredModel.record` as JSON."""
ROW_GROUP = 4096
"""Rows written at a time."""


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Give a name beside `out` to write to; on success it becomes `out`, on failure it is removed and what stood there stays.

    Raises SettingsError where a folder is in the way, OSError where the place cannot be written.
    """
    if out.is_dir():
        raise SettingsError(f"--out {out} is a folder: name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    for killed in leftovers(out.parent, out.name):
        killed.unlink(missing_ok=True)
    beside = temporary(out)
    beside.touch()
    mode = beside.stat().st_mode
    try:
        yield beside
        beside.chmod(mode)  # safetensors makes its own readable by their owner alone
        fsync(beside)
        beside.replace(out)
        fsync(out.parent)
    finally:
        beside.unlink(missing_ok=True)


class Rows:
    """Writes images' rows to a Parquet file: index, file, array and row, then the columns that each block brings."""

    def __init__(self, file: Path, record: dict[str, Any]) -> None:
        """`record` goes into the schema's metadata."""
        self._file, self._record, self._held, self.written = file, record, list[pa.Table](), 0
        self._waiting = 0
        self._opened: pq.ParquetWriter | None = None

    def add(self, origins: list[Origin], columns: dict[str, pa.Array]) -> None:
        """Add a row an image."""
        index = np.arange(self.written, self.written + len(origins))
        named = {
            "index": pa.array(index),
            "file": pa.array([origin.file for origin in origins], pa.string()),
            "array": pa.array([origin.array for origin in origins], pa.string()),
            "row": pa.array([origin.row for origin in origins], pa.int64()),
        }
        self._held.append(pa.table(named | columns))
        self.written += len(origins)
        self._waiting += len(origins)
        if self._waiting >= ROW_GROUP:
            self._write()

    def close(self) -> None:
        """Write what is left and end the file."""
        self._write()
        if self._opened is not None:
            self._opened.close()

    def _write(self) -> None:
        if not self._held:
            return
        metadata = {METADATA: json.dumps(self._record, sort_keys=True, ensure_ascii=False).encode()}
        table = pa.concat_tables(self._held).replace_schema_metadata(metadata)
        if self._opened is None:
            names = ["file", "array"]  # these repeat; floats of a network do not compress, and a dictionary would cost time
            compression = {name: "zstd" if name in names else "none" for name in table.schema.names}
            self._opened = pq.ParquetWriter(self._file, table.schema, compression=compression, use_dictionary=names)
        self._opened.write_table(table)
        self._held, self._waiting = [], 0


def vectors(values: npt.NDArray[np.float32]) -> pa.Array:
    """(n, D) as fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
