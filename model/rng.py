"""Randomness as a function of what it is for, not of a generator's history: so that a resumed run draws the same numbers."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CHUNK = 16
"""Places of a global batch that are drawn with one generator, always all of them."""
SAMPLE_SHARDS = 8
"""Shards that a few images are taken from where there are many."""


def seed_of(seed: int, *what: str | int) -> int:
    """A seed for this purpose, for example `seed_of(seed, "noise", step)`, 63 bits."""
    words = hashlib.sha256("/".join(map(str, (seed, *what))).encode()).digest()
    return int.from_bytes(words[:8], "big") >> 1


def generator(seed: int, *what: str | int) -> torch.Generator:
    """A CPU generator for this seed and purpose, for example `generator(seed, "noise", step)`."""
    return torch.Generator().manual_seed(seed_of(seed, *what))


@dataclass(frozen=True)
class Draws:
    """Random numbers of a step, for some places of the global batch, made on the device that uses them.

    They are drawn by whole chunks of CHUNK places: what a place gets depends on (seed, step, place) and the kind of device alone,
    neither on who computes it nor on how many there are, and nobody draws more than his own places and the rest of two chunks.
    Of GPUs PyTorch promises equal numbers on one model alone.
    """

    seed: int
    step: int
    places: slice
    device: torch.device

    def normal(self, what: str, *shape: int) -> Tensor:
        """Standard normal numbers, (n, *shape) float32 for n places."""
        return self._drawn(lambda chunk, chosen: chunk.normal_(generator=chosen), what, shape, torch.float32)

    def uniform(self, what: str, *shape: int) -> Tensor:
        """Numbers in [0, 1), (n, *shape) float32."""
        return self._drawn(lambda chunk, chosen: chunk.uniform_(generator=chosen), what, shape, torch.float32)

    def integers(self, what: str, high: int) -> Tensor:
        """Whole numbers in [0, high), (n,) int64."""
        return self._drawn(lambda chunk, chosen: chunk.random_(0, high, generator=chosen), what, (), torch.int64)

    def _drawn(
        self, fill: Callable[[Tensor, torch.Generator], object], what: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        first, last = self.places.start // CHUNK, -(-self.places.stop // CHUNK)
        room = torch.empty((last - first) * CHUNK, *shape, dtype=dtype, device=self.device)
        chosen = torch.Generator(self.device)
        for number, chunk in enumerate(torch.split(room, CHUNK), first):
            fill(chunk, chosen.manual_seed(seed_of(self.seed, what, self.step, number)))
        return room[self.places.start - first * CHUNK : self.places.stop - first * CHUNK]


def sample_order(seed: int, count: int, start: int, number: int) -> npt.NDArray[np.int64]:
    """Indices of the samples at positions start .. start + number - 1 of an endless run of shuffled epochs over `count` images."""
    parts = []
    while number:
        epoch, offset = divmod(start, count)
        part = _epoch_order(seed, count, epoch)[offset : offset + number]
        parts.append(part)
        start, number = start + len(part), number - len(part)
    return np.concatenate(parts)


def sample(seed: int, count: int, limit: int) -> npt.NDArray[np.int64]:
    """Indices of `limit` of `count` things at random, ascending; all where there are no more."""
    chosen: npt.NDArray[np.int64] = torch.randperm(count, generator=generator(seed, "sample"))[:limit].sort().values.numpy()
    return chosen


def sample_rows(
    seed: int, count: int, shards: Sequence[slice] | None, limit: int, most: int = SAMPLE_SHARDS
) -> npt.NDArray[np.int64]:
    """Indices of `limit` of `count` images at random, ascending.

    Where there are more than `most` shards they are from so many only, as each is read whole.
    """
    if not shards or len(shards) <= most:
        return sample(seed, count, limit)
    chosen = [shards[i] for i in sample(seed, len(shards), most)]
    rows = np.concatenate([np.arange(shard.start, shard.stop) for shard in chosen])
    return rows[sample(seed, len(rows), limit)]


def derangement(seed: int, count: int) -> torch.Tensor:
    """For each of `count` things another one, (count,) int64: a random cycle through all, so none is its own partner."""
    cycle = torch.randperm(count, generator=generator(seed, "derangement"))
    partner = torch.empty_like(cycle)
    partner[cycle] = cycle.roll(1)
    return partner


@lru_cache(maxsize=2)
def _epoch_order(seed: int, count: int, epoch: int) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = torch.randperm(count, generator=generator(seed, "epoch", epoch)).numpy()
    return order
