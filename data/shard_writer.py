"""A split's images into shards, several at a time: Parquet, sha256 and the way to the store run beside the decoding."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.npy_stream import check_count
from data.shard_file import Images, encode
from data.shards import Shard, store_name
from data.store import Folder, Store

MB = 10**6
WRITERS = 4
UNDER_WAY = 256 * MB
"""Shards at work hold about this much; each counts twice, as images and as Parquet."""


def images_a_shard(shape: tuple[int, ...], shard_bytes: int) -> int:
    """How many images (H, W, C) make a shard of so many bytes of pixels, at least one."""
    return max(1, shard_bytes // prod(shape))


def write(
    folder: Path, store: Store | None, blocks: Iterable[Images], labels: npt.NDArray[Any], shard_bytes: int, threads: int = WRITERS
) -> tuple[tuple[int, ...], list[Shard]]:
    """Write images that come in blocks (n, H, W, C), one for each of `labels`, as shards of so many bytes of pixels.

    Manifests go into `folder`, and the shards too, `00000.parquet` and on, unless a `store` is given. Returns (H, W, C) and the
    shards. The bytes do not depend on the blocks or the threads. Raises DataError when the images are fewer or more than the
    labels, or the store cannot be written.
    """
    shape: tuple[int, ...] = ()
    shards, under_way, first = list[Shard](), deque[Future[Shard]](), 0
    with ThreadPoolExecutor(threads, "shard") as pool:
        for images in _filled(blocks, shard_bytes, len(labels)):
            shape = images.shape[1:]
            number = len(shards) + len(under_way)
            under_way.append(pool.submit(_put, folder, store, number, images, labels[first : first + len(images)], first))
            first += len(images)
            if len(under_way) >= _at_once(images.nbytes, threads):
                shards.append(under_way.popleft().result())
        shards += [left.result() for left in under_way]
    for number, shard in enumerate(shards):
        shard.write(folder / f"{number:05d}.json")
    return shape, shards


def _at_once(nbytes: int, threads: int) -> int:
    return max(1, min(threads, UNDER_WAY // (2 * nbytes)))


def _filled(blocks: Iterable[Images], shard_bytes: int, count: int) -> Iterator[Images]:
    """Blocks of any length joined and cut to the length of a shard, each with memory of its own."""
    shard, filled, written = np.empty((0,), np.uint8), 0, 0
    for block in blocks:
        size = images_a_shard(block.shape[1:], shard_bytes)
        while len(block):
            if not filled:
                shard = np.empty((min(size, max(count - written, len(block))), *block.shape[1:]), np.uint8)
            taken = block[: len(shard) - filled]
            shard[filled : filled + len(taken)] = taken
            filled, written, block = filled + len(taken), written + len(taken), block[len(taken) :]
            if filled == len(shard):
                yield shard
                filled = 0
    check_count(written, count)
    if filled:
        yield shard[:filled]


def _put(folder: Path, store: Store | None, number: int, images: Images, labels: npt.NDArray[Any], first: int) -> Shard:
    content = encode(images, labels, first)
    digest = sha256(content).hexdigest()
    if store is None:
        name = f"{number:05d}.parquet"
        Folder(folder).write(name, content)
    else:
        name = store_name(digest)
        if store.size(name) != len(content):  # one that is there is whole: stores rename, or put at once
            store.write(name, content)
    return Shard(name, first, len(images), len(content), digest)
