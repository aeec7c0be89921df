"""What is probed: a candidate's features, in pieces; and what one pass over the images gives to several candidates."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from components.common.errors import ArtifactError
from components.probing.classifier import Floats
from data.format import Split, SplitName

Ints = npt.NDArray[np.int64]
IN_MEMORY = 64 * 2**20
"""Bytes of a candidate's features that are kept in memory, each split; more than that are kept in a temporary file."""
HELD_BYTES = 128 * 2**20
"""Bytes of a mapped file that are read before its pages are given back."""
PIECE_BYTES = 16 * 2**20
"""Bytes of features that are read at a time from what is kept."""


@dataclass(frozen=True)
class Candidate:
    """One representation at one timestep (None where it has none).

    `pieces(split, rows)` yields its features of successive images of a split, (n, D) float32: of `rows` (ascending image numbers),
    or of all where that is None. `variant` says what else is chosen on val, such as the number of components. Without `standardise`
    the probe takes the features as they are: standardising principal components whitens them.
    """

    representation: str
    t: int | None
    pieces: Callable[[SplitName, Ints | None], Iterable[Floats]]
    variant: str = ""
    standardise: bool = True

    def features(self, split: SplitName, rows: Ints) -> Floats:
        """The features of some images of a split, (len(rows), D) float32: a copy of the caller's own."""
        return gather(self.pieces(split, rows), len(rows))


def gather(pieces: Iterable[Floats], count: int) -> Floats:
    """`count` rows of pieces (n, D) in one array, with no second copy of them all. Raises ArtifactError where there are fewer."""
    out, done = np.empty((0, 0), np.float32), 0
    for piece in pieces:
        if not done:
            out = np.empty((count, piece.shape[1]), np.float32)
        out[done : done + len(piece)] = piece
        done += len(piece)
    check_whole(done, count)
    return out


def check_whole(found: int, count: int) -> None:
    """Raises ArtifactError unless a representation has all the images that were asked for."""
    if found != count:
        raise ArtifactError(f"a representation has {found} of {count} images of a split: embed all images of the dataset")


def images_of(split: Split, rows: Ints | None, size: int) -> Iterator[tuple[Ints, npt.NDArray[np.uint8]]]:
    """Yield numbers (n,) and images (n, H, W, C), at most `size` at a time and none across shards: each is read once, in order."""
    held, image = 0, prod(split.images.shape[1:])
    for shard in split.shards:
        if rows is None:
            numbers: Ints = np.arange(shard.start, shard.stop)
        else:
            numbers = rows[slice(*np.searchsorted(rows, [shard.start, shard.stop]))]
        for start in range(0, len(numbers), size):
            some = numbers[start : start + size]
            successive = some[-1] - some[0] + 1 == len(some)
            yield some, split.images[slice(some[0], some[-1] + 1) if successive else some]
            held += image * int(some[-1] - some[0] + 1)
            if held > HELD_BYTES:
                split.release()
                held = 0


@dataclass
class Pass:
    """Features that one pass over images gives to several candidates, such as the blocks of a denoiser at one t.

    They are kept until another place is asked for: the candidates of one place must follow each other.
    """

    _place: Any = None
    _kept: dict[tuple[SplitName, int | None], "dict[int, _Kept]"] = field(default_factory=dict)

    def pieces(
        self,
        place: Any,
        split: SplitName,
        rows: Ints | None,
        part: int,
        compute: Callable[[SplitName, Ints | None], Iterable[dict[int, Floats]]],
    ) -> Iterator[Floats]:
        """Pieces of one part of what `compute` yields at `place` for images of a split; all parts are computed once."""
        if place != self._place:
            self._place, self._kept = place, {}
        key = split, None if rows is None else hash(rows.tobytes())
        if key not in self._kept:
            kept: dict[int, _Kept] = {}
            for parts in compute(split, rows):
                for number, x in parts.items():
                    kept.setdefault(number, _Kept(x.shape[1])).add(x)
            self._kept[key] = kept
        return self._kept[key][part].pieces()


class _Kept:
    """Rows (n, D) float32, added and read a piece at a time, in memory or in a file that goes with it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  (it lives as long as this does)

    def add(self, x: Floats) -> None:
        self._file.write(np.ascontiguousarray(x, np.float32).tobytes())

    def pieces(self) -> Iterator[Floats]:
        row = 4 * self._width
        self._file.seek(0)
        while data := self._file.read(max(1, PIECE_BYTES // row) * row):
            yield np.frombuffer(data, np.float32).reshape(-1, self._width)
