"""Randomness as a function of what it is for, not of a generator's history: so that a resumed run draws the same numbers."""

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch


def generator(seed: int, *what: str | int) -> torch.Generator:
    """A CPU generator for this seed and purpose, for example `generator(seed, "noise", step)`."""
    words = hashlib.sha256("/".join(map(str, (seed, *what))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(words[:8], "big") >> 1)


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
