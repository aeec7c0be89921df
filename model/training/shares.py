"""What a step reads: this process's share of its images, from one mapped file or from the shards that are open."""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..images import Images
from .order import Ints, Order

ANNOUNCED = 2048
"""Bytes of an image from which on the system is told beforehand which ones a step reads (docs/scale.md)."""


class Shares:
    """Of step s, the images at these places of the batch: `shares[s]`, (n, H, W, C) uint8.

    Images are any array that takes an ascending index array and slices. Of those in shards the open ones are held, and no more.
    """

    def __init__(self, images: Images, order: Order, places: slice) -> None:
        self._images, self._order, self._places = images, order, places
        self._mapped = isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)  # a file, and all of it
        self._open: dict[int, Images] = {}  # by their first image
        self._announced = -1
        self._known: tuple[int, Ints] | None = None

    @property
    def bytes_a_step(self) -> int:
        """What a step's images take."""
        number: int = self._places.stop - self._places.start
        return number * prod(self._images.shape[1:])

    @property
    def sharded(self) -> bool:
        """Whether whole shards are held."""
        return self._order.shards(0, self._places) is not None

    def __getitem__(self, step: int) -> Tensor:
        """Read them. From several threads at a time only where there are no shards."""
        return torch.from_numpy(self._read(step))

    def announce(self, step: int) -> None:
        """Let the system read what a step needs from the disk, all at once and in its own time: 2 to 5 times as fast as in turn."""
        size = self.bytes_a_step // max(1, self._places.stop - self._places.start)
        if not self._mapped or size < ANNOUNCED or step == self._announced or not hasattr(os, "posix_fadvise"):
            return
        self._announced = step
        images: Any = self._images
        try:
            file = os.open(images.filename, os.O_RDONLY)
        except OSError:
            return  # the file was replaced meanwhile; what is mapped stays
        try:
            for row in self._rows(step).tolist():
                os.posix_fadvise(file, images.offset + row * size, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)

    def _rows(self, step: int) -> Ints:
        """The images of a step, which is often asked for twice: when it is announced and when it is read."""
        known = self._known
        if known is None or known[0] != step:
            self._known = known = (step, self._order.rows(step, self._places))
        return known[1]

    def _read(self, step: int) -> Images:
        rows, shards = self._rows(step), self._order.shards(step, self._places)
        if shards is None:
            self.announce(step)
            return np.asarray(self._images[rows])
        self._open = {shard.start: self._open[shard.start] for shard in shards if shard.start in self._open}
        missing = [shard for shard in shards if shard.start not in self._open]
        with ThreadPoolExecutor(max(1, len(missing))) as threads:
            for shard, images in zip(missing, threads.map(self._images.__getitem__, missing), strict=True):
                self._open[shard.start] = np.asarray(images)
        found = np.empty((len(rows), *self._images.shape[1:]), np.uint8)
        for shard in shards:
            inside = (rows >= shard.start) & (rows < shard.stop)
            found[inside] = self._open[shard.start][rows[inside] - shard.start]
        return found
