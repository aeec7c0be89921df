"""Near-duplicates: the same picture twice, once re-encoded, flipped, shifted by a pixel or slightly brighter.

Two stages. *Candidates* come from a descriptor that flips and shifts leave alone: the magnitudes of an image's low spatial
frequencies. A shift changes only the phases; a flip along one axis turns frequency (u, v) into (-u, v), so the two are averaged.
One matrix product therefore covers every flip and shift. *Verification* then compares pixels, over four flips and shifts by up to
a pixel, after a light blur: re-encoding adds noise from pixel to pixel, which the blur removes, where another garment
of the same cut differs over whole regions, which it keeps. On Fashion-MNIST the blur raises the share of found JPEG copies
from 77 % to 99 % at the same share of look-alikes (docs/validation.md).

The distance is sqrt(1 - r^2) with r the correlation of two aligned images: the share of the contrast that a change of brightness
and contrast cannot explain. 0 is the same picture, 1 an unrelated one. Images that are nearly blank have no contrast to compare
and are left out. Colours are averaged to grey.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.format import Split
from data.groups import Groups, connected
from data.npy_stream import Rows, blocks_of
from data.quality.alignment import MIN_CONTRAST, SIDE, Floats, Ints, distances, grey, is_small, shrunk

FREQUENCIES = 8
"""Highest spatial frequency in a descriptor, in periods an image."""
CANDIDATES = 6
"""Pictures verified for each query."""
MIN_SIMILARITY = np.float32(0.95)
"""Candidates below this cosine of descriptors are not verified: planted copies of all kinds stayed above 0.97."""
ROUGH = 0.35
"""A query's best candidate is compared once more below this distance, in full size and double precision: in a picture that was
averaged down, a shift by a pixel is one by a part of a pixel, which costs up to 0.3."""
MIN_SIDE = 4
"""Pixels a side below which shifts leave nothing to compare."""
TILES, TILE = 64, 1024
"""One of every `TILE` references can become a candidate; fewer than TILE where there would not be `TILES` tiles."""
BLOCK_BYTES = 16 * 2**20
DESCRIBED_BYTES = 2**20


@dataclass(frozen=True)
class Pair:
    """An image and the most alike image of another split; equal distances go to the lower index."""

    split: str
    index: int
    other_split: str
    other_index: int
    distance: float


def find(queries: Split, references: Sequence[Split], distance: float) -> Iterator[Pair | None]:
    """For each query image, in order, its nearest picture in `references` where that is nearer than `distance`, else None.

    Memory: about 0.3 kB an image of `references`, plus blocks. Time: proportional to queries times references.
    """
    if min(queries.images.shape[1:3]) < MIN_SIDE:
        yield from (None for _ in range(len(queries)))
        return
    described = np.concatenate([descriptors(split.images) for split in references])
    starts = np.cumsum([0] + [len(split) for split in references])
    step = _block_length(queries.images)
    for start in range(0, len(queries), step):
        block = queries.images[start : start + step]
        nearest, index = _nearest(block, _candidates(descriptors(block), described), lambda at: _images_at(references, starts, at))
        for i in range(len(block)):
            place = _place(references, starts, int(index[i]))
            yield Pair(queries.name, start + i, *place, float(nearest[i])) if nearest[i] < distance else None


def groups(images: npt.NDArray[np.uint8] | Rows, distance: float) -> Groups:
    """Groups 0 .. G - 1, (N,): images nearer than `distance` share one, directly or through others.

    Boruvka's algorithm: each round joins an image's group with that of the nearest image outside of it. Images that found one are
    asked again; a round at least halves the number of groups with anything near. Memory and time as of `find`, N times N.
    """
    group: Groups = np.arange(len(images))
    if min(images.shape[1:3]) < MIN_SIDE:
        return group
    described, step = descriptors(images), _block_length(images)
    asked = group
    while len(asked):
        near = group.copy()  # the group that each image's group is joined with
        for start in range(0, len(asked), step):
            rows = asked[start : start + step]
            block = images[rows]
            found = _candidates(described[rows], described, (group[rows], group))
            nearest, index = _nearest(block, found, images.__getitem__)
            close = nearest < distance
            near[rows[close]] = group[index[close]]
        asked = np.flatnonzero(near != group)
        group = connected(group, near)[group]
    return group


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


def descriptors(images: npt.NDArray[np.uint8] | Rows) -> Floats:
    """(N, H, W, C) uint8 to unit vectors (N, F) that shifts, flips, brightness and contrast hardly change; 0 if nearly blank."""
    return np.concatenate([_descriptor(shrunk(images[rows])) for rows in blocks_of(images, DESCRIBED_BYTES)])


def _descriptor(levels: Floats) -> Floats:
    count, height, width = levels.shape
    contrast = levels.std((1, 2), keepdims=True)
    levels = (levels - levels.mean((1, 2), keepdims=True)) * (contrast >= MIN_CONTRAST)
    high = np.arange(min(FREQUENCIES, height // 2) + 1)
    wide = np.arange(min(FREQUENCIES, width // 2) + 1)
    magnitude = np.abs(np.fft.fft(np.fft.rfft(levels, axis=2)[:, :, wide], axis=1))  # (N, H, V)
    folded = (magnitude[:, high] + magnitude[:, -high % height]).reshape(count, -1)[:, 1:]  # (N, F): (u, v) with (-u, v), no mean
    vector = np.sqrt(folded)  # magnitudes fall steeply with frequency; the root lets the finer ones count
    unit: Floats = vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-6)
    return unit


def _candidates(queries: Floats, references: Floats, groups: tuple[Groups, Groups] | None = None) -> tuple[Floats, Ints]:
    """The most similar reference of each tile, and of those the best CANDIDATES, in order of index: both (Q, K).

    The most similar one is always among them; a close second is missed only where it shares a tile with a better one. With the
    `groups` of queries and references, only those of another group count.
    """
    similarity, index = [], []
    rows = np.arange(len(queries))
    tile = min(TILE, -(-len(references) // TILES))
    for start in range(0, len(references), tile):
        cosine = queries @ references[start : start + tile].T  # (Q, tile)
        if groups:
            cosine[groups[0][:, None] == groups[1][start : start + tile]] = -1
        best = cosine.argmax(1)
        similarity.append(cosine[rows, best])
        index.append(best + start)
    all_similarity, all_index = np.stack(similarity, 1), np.stack(index, 1)
    keep = np.sort(np.argsort(-all_similarity, 1, kind="stable")[:, :CANDIDATES], 1)
    return np.take_along_axis(all_similarity, keep, 1), np.take_along_axis(all_index, keep, 1)


def _images_at(references: Sequence[Split], starts: Ints, index: Ints) -> npt.NDArray[np.uint8]:
    """The images at `index`, counted through all references: (P, H, W, C)."""
    images = np.empty((len(index), *references[0].images.shape[1:]), np.uint8)
    for split, start in zip(references, starts, strict=False):
        here = (index >= start) & (index < start + len(split))
        images[here] = split.images[index[here] - start]
    return images


def _place(references: Sequence[Split], starts: Ints, index: int) -> tuple[str, int]:
    which = int(np.searchsorted(starts, index, side="right")) - 1
    return references[which].name, index - int(starts[which])
