"""Choosing t with labels and few probes: searches over log-SNR of what a small probe on val gives.

Each search is given `value(t, size)`, higher = better, where size, 0 .. 1, is the share of the images that a probe may have.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from components.selecting.places import ends, nearest

Value = Callable[[int, float], float]
GOLD = (math.sqrt(5) - 1) / 2
CLOSE = 1.5
"""Log-SNR between two timesteps that a golden section no longer tells apart: val figures differ by less than chance there."""
RUNGS = 3
"""Rungs of successive halving: a quarter of the images, a half, all."""


@dataclass(frozen=True)
class Tried:
    """What a small probe gave at t, with `size` of the images, 0 .. 1."""

    t: int
    size: float
    value: float


def sweep(value: Value, timesteps: Sequence[int], schedule: str) -> Iterator[Tried]:
    """Every timestep, with all images."""
    for t in timesteps:
        yield Tried(t, 1.0, value(t, 1.0))


def halving(value: Value, timesteps: Sequence[int], schedule: str) -> Iterator[Tried]:
    """Successive halving (Jamieson and Talwalkar 2016): all t on few images, the better half on twice as many, and so on."""
    left = list(timesteps)
    for rung in range(RUNGS - 1, -1, -1):
        size = 0.5**rung
        found = [Tried(t, size, value(t, size)) for t in left]
        yield from found
        left = [one.t for one in sorted(found, key=lambda one: -one.value)][: -(-len(found) // 2)]


def golden(value: Value, timesteps: Sequence[int], schedule: str) -> Iterator[Tried]:
    """Golden section over log-SNR, between the ends of the schedule: right where the curve has one peak (Kiefer 1953)."""
    known: dict[int, float] = {}

    def at(level: float) -> float:
        t = nearest(level, schedule)
        if t not in known:
            known[t] = value(t, 1.0)
        return known[t]

    low, high = ends(schedule)
    inner = [high - GOLD * (high - low), low + GOLD * (high - low)]
    while high - low > CLOSE:
        if at(inner[0]) > at(inner[1]):
            high, inner = inner[1], [inner[1] - GOLD * (inner[1] - low), inner[0]]
        else:
            low, inner = inner[0], [inner[1], inner[0] + GOLD * (high - inner[0])]
    for t, found in known.items():
        yield Tried(t, 1.0, found)


SEARCHES: dict[str, Callable[[Value, Sequence[int], str], Iterator[Tried]]] = {"sweep": sweep, "golden": golden, "halving": halving}


def best(tried: Sequence[Tried]) -> int:
    """The t with the highest value among those that had the most images; the first of equals."""
    size = max(one.size for one in tried)
    return max((one for one in tried if one.size == size), key=lambda one: one.value).t
