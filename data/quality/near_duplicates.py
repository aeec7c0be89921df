"""Near-duplicates: the same picture twice, once re-encoded, flipped, shifted by a pixel or slightly brighter.

Two stages. *Candidates* are the pictures whose descriptors are the most similar (`data.quality.candidates`);
one product of them covers every flip and shift. *Verification* then compares pixels, over four flips and shifts by up to
a pixel, after a light blur: re-encoding adds noise from pixel to pixel, which the blur removes, where another garment
of the same cut differs over whole regions, which it keeps. On Fashion-MNIST the blur raises the share of found JPEG copies
from 77 % to 99 % at the same share of look-alikes (docs/validation.md).

The distance is sqrt(1 - r^2) with r the correlation of two aligned images: the share of the contrast that a change of brightness
and contrast cannot explain. 0 is the same picture, 1 an unrelated one. Images that are nearly blank have no contrast to compare
and are left out. Colours are averaged to grey.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import numpy.typing as npt

from data.format import Split
from data.groups import Groups, connected
from data.npy_stream import Rows
from data.quality.alignment import SIDE, Floats, Ints, distances, grey, is_small, shrunk
from data.quality.blocks import HELD_BYTES, blocks_in
from data.quality.candidates import CANDIDATES, Candidates, candidates
from data.quality.descriptors import descriptors, descriptors_of

MIN_SIMILARITY = np.float32(0.95)
"""Candidates below this cosine of descriptors are not verified: planted copies of all kinds stayed above 0.97."""
ROUGH = 0.35
"""A query's best candidate is compared once more below this distance, in full size and double precision: in a picture that was
averaged down, a shift by a pixel is one by a part of a pixel, which costs up to 0.3."""
MIN_SIDE = 4
"""Pixels a side below which shifts leave nothing to compare."""
BLOCK_BYTES = 16 * 2**20
PAGES = 24
"""Bytes of a mapped file that come into memory with each byte of single images: the system maps 64 kB around it."""
GATHERED_BYTES = 2**30
"""Candidates in shards that are fetched at a time, each shard read once for all of them: less memory is more reading."""


@dataclass(frozen=True)
class Pair:
    """An image and the most alike image of another split; equal distances go to the lower index."""

    split: str
    index: int
    other_split: str
    other_index: int
    distance: float


class References:
    """Pictures that others are compared with: descriptors are in memory, about 0.3 kB an image (twice that above
    `candidates.INDEXED` images), pixels stay on disk."""

    def __init__(self, splits: Sequence[Split], known: Candidates | None = None) -> None:
        """`known` is what else gives candidates among them, for comparisons."""
        self.splits = list(splits)
        self._starts = np.cumsum([0] + [len(split) for split in splits])
        self._held = 0
        self._candidates = known
        if known is None and _comparable(splits[0].images):
            self._candidates = candidates(np.concatenate([descriptors_of(split) for split in splits]))

    @property
    def indexed(self) -> bool:
        """Whether candidates come from an index, which may miss some."""
        return self._candidates is not None and self._candidates.indexed

    def find(self, queries: Split, distance: float, among: int | None = None) -> Iterator[Pair | None]:
        """For each query image, in order, its nearest picture where that is nearer than `distance`, else None.

        With `among`, only the first so many splits count. Time: proportional to queries times references, up to `INDEXED` of these.
        """
        if self._candidates is None:
            yield from (None for _ in range(len(queries)))
            return
        count = int(self._starts[len(self.splits) if among is None else among])
        for rows in blocks_in(queries, self._at_once(queries)):
            block, step = queries.images[rows], _block_length(queries.images)
            parts = [slice(start, start + step) for start in range(0, len(block), step)]
            found = [self._candidates.search(descriptors(block[part]), count) for part in parts]
            images_at = self._fetched(found)
            for part, candidate in zip(parts, found, strict=True):
                nearest, index = _nearest(block[part], candidate, images_at)
                for i, near in enumerate(nearest.tolist(), rows.start + part.start):
                    other = int(index[i - rows.start - part.start])
                    yield Pair(queries.name, i, *self._place(other), near) if near < distance else None

    def _at_once(self, queries: Split) -> int:
        """Queries whose candidates are fetched together: of references in shards as many as memory allows, so that each is read
        seldom."""
        step = _block_length(queries.images)
        sharded = any(len(split.shards) > 1 for split in self.splits)
        return max(step, GATHERED_BYTES // (CANDIDATES * prod(queries.images.shape[1:]))) if sharded else step

    def _fetched(self, found: Sequence[tuple[Floats, Ints]]) -> Callable[[Ints], npt.NDArray[np.uint8]]:
        """Gives the images of candidates that are verified: out of shards those of all blocks at once, in order."""
        if all(len(split.shards) == 1 for split in self.splits):
            return self._images_at
        wanted = np.unique(np.concatenate([index[similarity >= MIN_SIMILARITY] for similarity, index in found]))
        images = self._images_at(wanted)
        return lambda index: images[np.searchsorted(wanted, index)]

    def _images_at(self, index: Ints) -> npt.NDArray[np.uint8]:
        """The images at `index`, counted through all splits: (P, H, W, C)."""
        images = np.empty((len(index), *self.splits[0].images.shape[1:]), np.uint8)
        self._held += images.nbytes
        if self._held > HELD_BYTES // PAGES:
            self._held = 0
            for split in self.splits:
                split.release()
        for split, (start, end) in zip(self.splits, pairwise(self._starts), strict=True):
            here = (index >= start) & (index < end)
            images[here] = split.images[index[here] - start]
        return images

    def _place(self, index: int) -> tuple[str, int]:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.splits[which].name, index - int(self._starts[which])


def find(queries: Split, references: Sequence[Split], distance: float) -> Iterator[Pair | None]:
    """`References.find` among all of `references`."""
    yield from References(references).find(queries, distance)


def groups(images: npt.NDArray[np.uint8] | Rows, distance: float) -> Groups:
    """Groups 0 .. G - 1, (N,): images nearer than `distance` share one, directly or through others.

    Boruvka's algorithm: each round joins an image's group with that of the nearest image outside of it. Images that found one are
    asked again; a round at least halves the number of groups with anything near. Memory and time as of `References`, N times N.
    """
    group: Groups = np.arange(len(images))
    if not _comparable(images):
        return group
    described, step = descriptors(images), _block_length(images)
    search = candidates(described)
    asked = group
    while len(asked):
        near = group.copy()  # the group that each image's group is joined with
        for start in range(0, len(asked), step):
            rows = asked[start : start + step]
            found = search.search(described[rows], len(images), (group[rows], group))
            nearest, index = _nearest(images[rows], found, images.__getitem__)
            close = nearest < distance
            near[rows[close]] = group[index[close]]
        asked = np.flatnonzero(near != group)
        group = connected(group, near)[group]
    return group


def _comparable(images: npt.NDArray[np.uint8] | Rows) -> bool:
    return min(images.shape[1:3]) >= MIN_SIDE


def _block_length(images: npt.NDArray[np.uint8] | Rows) -> int:
    """Queries at a time. Comparing one candidate takes its bytes, and half a dozen grey copies of 4 bytes a pixel."""
    height, width, channels = images.shape[1:]
    memory: int = height * width * channels + 24 * min(height, SIDE) * min(width, SIDE)
    return max(1, BLOCK_BYTES // (CANDIDATES * memory))


def _nearest(
    queries: npt.NDArray[np.uint8], candidates: tuple[Floats, Ints], images_at: Callable[[Ints], npt.NDArray[np.uint8]]
) -> tuple[npt.NDArray[np.float64], Ints]:
    """For each query the distance of the nearest of its candidates, and which that is: both (Q,)."""
    similarity, found = candidates
    apart = np.ones(found.shape)
    row, column = np.nonzero(similarity >= MIN_SIMILARITY)
    if len(row):
        apart[row, column] = distances(shrunk(queries), shrunk(images_at(found[row, column])), row)
    best = apart.argmin(1)  # the first of equals: candidates are in order of index
    nearest, index = apart.min(1), found[np.arange(len(queries)), best]
    close = np.flatnonzero(nearest < ROUGH)
    if len(close):
        pictures, nearby = grey(queries[close]), grey(images_at(index[close]))
        exact = distances(pictures.astype(np.float64), nearby.astype(np.float64), np.arange(len(close)))
        nearest[close] = exact if is_small(queries) else np.minimum(nearest[close], exact)
    return nearest, index
