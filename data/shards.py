"""The second on-disk form of a split: shards, Parquet files of some MB that are read in order, or a few at a time.

Beside each, or where it lies in a store in its stead, stands its manifest: its first image, the number of images, bytes and sha256.
"""

import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.shard_file import CURE, Content, Images, Ints, runs
from data.store import open_store


@dataclass(frozen=True)
class Shard:
    """A shard's manifest, and its name in the store."""

    name: str
    first: int
    images: int
    bytes: int
    sha256: str

    def write(self, file: Path) -> None:
        """Write the manifest."""
        content = {"bytes": self.bytes, "first": self.first, "images": self.images, "sha256": self.sha256}
        file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read_manifests(folder: Path, in_store: bool) -> list[Shard]:
    """The shards of the split in `folder`, in order, whether they lie in it or in a store.

    Raises DataError where a manifest is missing or none.
    """
    found: list[Shard] = []
    for file in sorted(folder.glob("[0-9]*.json"), key=lambda file: (len(file.name), file.name)):
        try:
            content = json.loads(file.read_text("utf-8"))
            first, images, size = (int(content[name]) for name in ("first", "images", "bytes"))
            digest = str(content["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"cannot read the shard's manifest {file}: {error!r}; prepare the data again") from error
        name = store_name(digest) if in_store else f"{file.stem}.parquet"
        if first != sum_of(found) or images < 1 or file.stem != f"{len(found):05d}":
            raise DataError(f"{file} begins at image {first} where {sum_of(found)} come before it; prepare the data again")
        found.append(Shard(name, first, images, size, digest))
    return found


def sum_of(shards: Sequence[Shard]) -> int:
    """The images in successive shards."""
    return shards[-1].first + shards[-1].images if shards else 0


def store_name(digest: str) -> str:
    """A shard's name in a store, by its content: who writes it twice, or at once with another, changes nothing."""
    return f"{digest}.parquet"


class ShardedImages:
    """Images (N, H, W, C) uint8 in shards, read when indexed: by an int, a slice, or an array of rows in any order.

    What is given is the caller's own copy. The last few shards of which a part was read stay open, a local one mapped, so whoever
    goes through the images in order reads each once. Threads may share one; a copy in another process (pickled, or after a fork)
    starts with none open. Raises DataError, in one line, for a shard that is missing, cut short or damaged.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, store: str, shards: Sequence[Shard], image_shape: Sequence[int], kept: int = 2) -> None:
        """Shards that lie in `store` (a folder or s3://bucket/prefix); `kept` of them stay open."""
        self._given = (store, tuple(shards), tuple(image_shape), kept)
        self._store, self._all, self._kept = open_store(store), tuple(shards), kept
        self._firsts = np.array([shard.first for shard in shards], np.int64)
        self.shape = (sum_of(shards), *image_shape)
        self.shards = tuple(slice(shard.first, shard.first + shard.images) for shard in shards)
        self._forget()
        _ALL.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Future[Content]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardedImages, self._given

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Images]:
        for rows in self.shards:
            yield from self[rows]

    def __array__(self, *_: Any, **__: Any) -> Images:
        raise TypeError(f"{len(self)} images in shards are not read at once: go through them by `Split.shards`")

    def __getitem__(self, index: SupportsIndex | slice | Sequence[int] | npt.NDArray[Any]) -> Images:
        """One image (H, W, C), or those at `index` in its order (n, H, W, C). Raises IndexError beyond the last."""
        if isinstance(index, slice):
            return self._at(np.arange(*index.indices(len(self))))
        rows = np.asarray(index)
        if isinstance(index, tuple) or rows.ndim > 1 or rows.dtype.kind not in "iub" or (rows.dtype.kind == "b" and rows.ndim == 0):
            if not isinstance(index, tuple) and rows.shape == (0,):
                return self._at(np.empty(0, np.int64))  # an empty list, which NumPy takes for floats
            raise TypeError("images in shards are indexed by an int, a slice or an array of rows: index what is given further")
        if rows.dtype.kind == "b":
            if len(rows) != len(self):
                raise IndexError(f"a mask of {len(rows)} for {len(self)} images")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"image {index if rows.ndim == 0 else 'rows'} out of range: there are {len(self)}")
        return self._at(rows) if rows.ndim else self._at(rows[None])[0]

    def _at(self, rows: Ints) -> Images:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        if np.any(rows[1:] < rows[:-1]):
            order = np.argsort(rows, kind="stable")
            images[order] = self._at(rows[order])
            return images
        for number, here in runs(np.searchsorted(self._firsts, rows, side="right") - 1):
            shard, inside = self._all[number], rows[here]
            whole = len(inside) == shard.images and number not in self._open  # who has all of a shard comes back for none of it
            content = self._read(shard) if whole else self._shard(number)
            content.copy(inside - shard.first, images[here])
        return images

    def _shard(self, number: int) -> Content:
        """A shard; of several threads that ask for it one reads, the others wait."""
        with self._lock:
            known = self._open.get(number)
            reading: Future[Content] = known or Future()
            if known is None:
                self._open[number] = reading
                while len(self._open) > self._kept:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(number)
        if known is None:
            try:
                reading.set_result(self._read(self._all[number]))
            except BaseException as error:  # Ctrl-C too: those who wait must not wait on
                with self._lock:
                    if self._open.get(number) is reading:
                        del self._open[number]
                reading.set_exception(error)
        return reading.result()

    def _read(self, shard: Shard) -> Content:
        content, place = self._store.read(shard.name), self._store.place(shard.name)
        if len(content) != shard.bytes:
            raise DataError(f"the shard {place} has {len(content)} bytes where its manifest says {shard.bytes}; {CURE}")
        if (place, shard.sha256) not in _CHECKED:
            if hashlib.sha256(content).hexdigest() != shard.sha256:
                raise DataError(f"the shard {place} does not match its sha256 in its manifest; {CURE}")
            _CHECKED.add((place, shard.sha256))
        return Content(content, (shard.images, *self.shape[1:]), place)


_CHECKED: set[tuple[str, str]] = set()
"""Shards whose sha256 this process found right: each is hashed when it is first read, not each time."""
_ALL: "weakref.WeakSet[ShardedImages]" = weakref.WeakSet()


def _after_fork() -> None:
    """A thread that was reading, or held a lock, is not there in the child."""
    for images in _ALL:
        images._forget()


os.register_at_fork(after_in_child=_after_fork)
