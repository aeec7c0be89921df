"""A split's images a block at a time: each inside one shard, and no more of a mapped file held than was lately read."""

from collections.abc import Iterator
from math import prod

from data.format import Split

HELD_BYTES = 256 * 2**20
"""Pixels after which the pages of a mapped file are given back: until then they count as this process's memory."""


def blocks_in(split: Split, count: int) -> Iterator[slice]:
    """Slices over a split's images of at most `count` images, each inside one shard."""
    held, image = 0, prod(split.images.shape[1:])
    for shard in split.shards:
        for start in range(shard.start, shard.stop, count):
            block = slice(start, min(start + count, shard.stop))
            yield block
            held += image * (block.stop - block.start)
            if held > HELD_BYTES:
                split.release()
                held = 0


def at_once(split: Split, size: int) -> int:
    """How many images hold about `size` bytes of pixels; at least one."""
    return max(1, size // max(1, prod(split.images.shape[1:])))
