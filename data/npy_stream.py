"""Arrays on disk a row at a time: out of a compressed npz, into a plain npy. Memory holds a block, never a split.

`np.load` would inflate a whole member of an npz (`mmap_mode` maps nothing there), hence the reader. The writer appends to a
file instead of filling a memory map, whose dirty pages count as this process's memory until the kernel writes them out.
"""

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError

BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Header:
    """What the head of an npy says: type, shape, and how many bytes of head come before the numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def members(path: Path) -> set[str]:
    """The names of the arrays in an npz. Raises DataError when it is missing, truncated or no npz at all."""
    if not path.is_file():
        raise DataError(f"no npz file at {path}: set data.path to one")
    with _reading(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def header(path: Path, name: str) -> Header:
    """Type and shape of one array of an npz. Raises DataError when it is damaged, pickled, or cannot be streamed."""
    with _reading(path, name), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name + ".npy")
        with archive.open(info) as file:
            return _header(file, info.file_size, f"{path}: {name}")


def blocks(path: Path, name: str) -> Iterator[npt.NDArray[Any]]:
    """One array of an npz in order, some rows (n, ...) at a time, never unpickled. Raises DataError as `header` does, and where
    the data are damaged."""
    with _reading(path, name), zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name + ".npy")
        with archive.open(info) as file:
            head = _header(file, info.file_size, f"{path}: {name}")
            row_bytes = prod(head.shape[1:]) * head.dtype.itemsize
            at_once = max(1, BLOCK_BYTES // row_bytes)
            for start in range(0, head.shape[0], at_once):
                count = min(at_once, head.shape[0] - start)
                yield np.frombuffer(_exactly(file, count * row_bytes), head.dtype).reshape(count, *head.shape[1:])


def whole(path: Path, name: str) -> npt.NDArray[Any]:
    """One array of an npz, all of it: for labels and names, which are small."""
    head = header(path, name)
    return np.concatenate([np.empty((0, *head.shape[1:]), head.dtype), *blocks(path, name)])


class Rows:
    """Images (N, H, W, C) uint8 of an npy on disk, read when indexed. Unlike a mapped file's, what was read is not held."""

    def __init__(self, path: Path, rows: npt.NDArray[np.int64] | None = None) -> None:
        """All images, or those at `rows` in that order."""
        with path.open("rb") as file:
            head = _header(file, path.stat().st_size, str(path))
        self._path, self._offset = path, head.offset
        self._rows = np.arange(head.shape[0]) if rows is None else rows
        self.shape = (len(self._rows), *head.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The images at `index`, in its order: (n, H, W, C)."""
        rows = self._rows[index]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        with self._path.open("rb", buffering=0) as file:
            for row, image in zip(rows.tolist(), images, strict=True):
                file.seek(self._offset + row * image.nbytes)
                file.readinto(image)
        return images

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        for rows in blocks_of(self, BLOCK_BYTES):
            yield from self[rows]


def blocks_of(images: npt.NDArray[np.uint8] | Rows, size: int) -> Iterator[slice]:
    """Slices over the images that each hold about `size` bytes of pixels, and at least one image."""
    step = max(1, size // max(1, prod(images.shape[1:])))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def write(path: Path, blocks: Iterable[npt.NDArray[np.uint8]], count: int) -> tuple[int, ...]:
    """Write `count` images that come in blocks (n, H, W, C) as an npy (count, H, W, C) uint8; return (H, W, C).

    Raises DataError when there are fewer or more.
    """
    shape: tuple[int, ...] = ()
    written = 0
    with path.open("wb") as file:
        for block in blocks:
            if not written:
                shape = block.shape[1:]
                head = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, head)
            file.write(np.ascontiguousarray(block).data)
            written += len(block)
    check_count(written, count)
    return shape


def check_count(written: int, count: int) -> None:
    """Raises DataError unless a source gave as many images as it promised."""
    if written != count:
        raise DataError(f"the source gave {written} images where it promised {count}; check that its files are whole")


def _header(file: IO[bytes], size: int, where: str) -> Header:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{where} has npy format version {version}; save it with numpy.savez_compressed")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"{where} holds pickled Python objects, which are never loaded; save a plain array of numbers")
    if not shape or 0 in shape[1:] or not dtype.itemsize:
        raise DataError(f"{where} has shape {shape} of {dtype}: an array with a row an image is needed, and something in each row")
    if fortran:
        raise DataError(f"{where} is stored column by column; save numpy.ascontiguousarray of it")
    offset = file.tell()
    # Compared before anything is allocated: a header may claim any size.
    if min(shape) < 0 or offset + prod(shape) * dtype.itemsize != size:
        raise DataError(f"{where} says shape {shape} of {dtype} but holds {size - offset} bytes: it is damaged; fetch it again")
    return Header(dtype, shape, offset)


def _exactly(file: IO[bytes], count: int) -> bytes:
    block = file.read(count)
    if len(block) != count:
        raise EOFError("the data end early")
    return block


@contextmanager
def _reading(path: Path, name: str | None = None) -> Iterator[None]:
    """Any trouble inside is the file's: a damaged zip ends in a dozen kinds of exception, from zlib's to struct's."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        part = f" ({name})" if name else ""
        raise DataError(f"cannot read {path}{part}: {error or type(error).__name__}; it is damaged or no npz") from error
