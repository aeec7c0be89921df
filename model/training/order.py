"""Which images a step draws: a function of (seed, step, place in the global batch), whoever asks.

Images in one file are drawn from one shuffle of all of them an epoch. Where they lie in many files, shards, that would read nearly
every shard for a batch; there the order is one of shards, a few of which are open at a time and shuffled together.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from ..rng import generator, sample_order
from .distributed import Processes

Ints = npt.NDArray[np.int64]
LANES = 8
"""Parts of a global batch that draw from shards of their own. A number of processes that divides it reads disjoint shards."""


class Order(Protocol):
    """Rows of images by step and place."""

    def rows(self, step: int, places: slice) -> Ints:
        """The images at these places of a step's batch, (n,)."""

    def shards(self, step: int, places: slice) -> list[slice] | None:
        """The shards that are open for these places during a step, ascending; None where images are read from one file."""


def make_order(seed: int, count: int, shards: Sequence[slice] | None, batch_size: int, shuffle_shards: int) -> Order:
    """The order of `count` images; `shards` are the successive ranges of them that lie in one file."""
    if shards is None or len(shards) < 2:
        return Shuffled(seed, count, batch_size)
    return Lanes(seed, shards, batch_size, shuffle_shards)


class Shuffled:
    """An endless run of shuffled epochs over all images. A step's are ascending, as they lie in the file."""

    def __init__(self, seed: int, count: int, batch_size: int) -> None:
        self._seed, self._count, self._batch_size = seed, count, batch_size

    def rows(self, step: int, places: slice) -> Ints:
        """The images at these places of a step's batch, (n,)."""
        drawn: Ints = np.sort(sample_order(self._seed, self._count, step * self._batch_size, self._batch_size))[places]
        return drawn

    def shards(self, step: int, places: slice) -> list[slice] | None:
        """None: there is one file."""
        return None


class Lanes:
    """The places of a batch are contiguous lanes, and each draws from an endless run of shuffled epochs over shards of its own.

    An epoch's permutation of the shards is dealt out to the lanes, another lane first each epoch, since the first may get one more.
    Within its epoch a lane opens some shards at a time and draws from these in one shuffle, until they are used up. Each image is
    drawn once an epoch, which ends a little earlier in one lane than in another.
    """

    def __init__(self, seed: int, shards: Sequence[slice], batch_size: int, shuffle_shards: int) -> None:
        most = min(LANES, shuffle_shards, len(shards), batch_size)
        self.count = 1 << (most.bit_length() - 1)  # a power of two, which 1, 2, 4, 8 processes divide
        self._together = shuffle_shards // self.count
        self._seed, self._shards, self._batch_size = seed, shards, batch_size
        self._starts = np.array([shard.start for shard in shards])
        self._sizes = np.array([shard.stop - shard.start for shard in shards])
        self._ends = [[0] for _ in range(self.count)]  # of each lane's epochs, as far as they were asked for: images drawn by then

    def rows(self, step: int, places: slice) -> Ints:
        """The images at these places of a step's batch, (n,); those of a lane are ascending."""
        parts = [np.empty(0, np.int64)]
        for lane, own in self._lanes(places):
            number = own.stop - own.start
            drawn = [
                self._images(lane, epoch, group, slice(offset, offset + n))
                for epoch, group, offset, n in self._pieces(lane, step * number, number)
            ]
            parts.append(np.sort(np.concatenate(drawn))[max(0, places.start - own.start) : places.stop - own.start])
        return np.concatenate(parts)

    def shards(self, step: int, places: slice) -> list[slice]:
        """The shards that are open for these places during a step, ascending."""
        found: set[int] = set()
        for lane, own in self._lanes(places):
            number = own.stop - own.start
            for epoch, group, _, _ in self._pieces(lane, step * number, number):
                found.update(self._group(lane, epoch, group).tolist())
        return [self._shards[number] for number in sorted(found)]

    def _lanes(self, places: slice) -> Iterator[tuple[int, slice]]:
        """Each lane that has some of these places, and its own ones: they are shared out as they are to processes."""
        for lane in range(self.count):
            own = Processes(lane, self.count).share(self._batch_size)
            if own.start < places.stop and places.start < own.stop:
                yield lane, own

    def _pieces(self, lane: int, start: int, number: int) -> Iterator[tuple[int, int, int, int]]:
        """Where a lane's images at positions start .. start + number - 1 come from: epoch, group, offset in it, how many."""
        while number:
            ends = self._ends[lane]
            while ends[-1] <= start:
                ends.append(ends[-1] + int(self._sizes[self._dealt(lane, len(ends) - 1)].sum()))
            epoch = bisect_right(ends, start) - 1
            shards = self._dealt(lane, epoch)
            groups = np.add.reduceat(self._sizes[shards], np.arange(0, len(shards), self._together)).cumsum()
            group = int(np.searchsorted(groups, start - ends[epoch], "right"))
            offset = start - ends[epoch] - (int(groups[group - 1]) if group else 0)
            n = min(number, int(groups[group]) - (start - ends[epoch]))
            yield epoch, group, offset, n
            start, number = start + n, number - n

    def _dealt(self, lane: int, epoch: int) -> Ints:
        """The shards of a lane's epoch, in the order in which they are opened."""
        permutation = _permutation(len(self._sizes), self._seed, "shards", epoch)
        return permutation[(lane + epoch) % self.count :: self.count]

    def _group(self, lane: int, epoch: int, group: int) -> Ints:
        return self._dealt(lane, epoch)[group * self._together : (group + 1) * self._together]

    def _images(self, lane: int, epoch: int, group: int, piece: slice) -> Ints:
        """A piece of the shuffled images of the shards that are open together."""
        shards = self._group(lane, epoch, group)
        ends = self._sizes[shards].cumsum()
        drawn = _permutation(int(ends[-1]), self._seed, "group", epoch, lane, group)[piece]
        which = np.searchsorted(ends, drawn, "right")
        found: Ints = drawn - (ends - self._sizes[shards])[which] + self._starts[shards[which]]
        return found


@lru_cache(maxsize=4 * LANES)
def _permutation(count: int, seed: int, *what: str | int) -> Ints:
    order: Ints = torch.randperm(count, generator=generator(seed, *what)).numpy()
    return order
