"""What a step reads: this process's share of its images, from one mapped file or from the shards that are open."""

import mmap
import os
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..images import Images
from .order import Order

ANNOUNCED = 2048
"""Bytes of an image from which on the system is told beforehand which ones a step reads (docs/performance.md)."""


class Shares(Dataset[Tensor | Exception]):
    """Item `step` is the step's images at these places of the batch, (n, H, W, C) uint8; or what went wrong, for the one who asked
    to raise: an exception that DataLoader brings from a worker has lost its one line.

    Images are any array that takes an ascending index array and slices. Of those in shards the open ones are held, and no more.
    """

    def __init__(self, images: Images, order: Order, places: slice) -> None:
        self._images, self._order, self._places = images, order, places
        self._mapped = isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)  # a file, and all of it
        self._open: dict[int, Images] = {}  # by their first image
        self._announced = -1

    @property
    def bytes_a_step(self) -> int:
        """What a step's images take."""
        number: int = self._places.stop - self._places.start
        return number * prod(self._images.shape[1:])

    @property
    def sharded(self) -> bool:
        """Whether whole shards are held."""
        return self._order.shards(0, self._places) is not None

    def __getitem__(self, step: int) -> Tensor | Exception:
        """Read them."""
        try:
            return torch.from_numpy(self._read(step))
        except Exception as error:
            return error

    def announce(self, step: int) -> None:
        """Let the system read what a step needs from the disk, all at once and in its own time: 2 to 5 times as fast as in turn."""
        size = self.bytes_a_step // max(1, self._places.stop - self._places.start)
        if not self._mapped or size < ANNOUNCED or step == self._announced or not hasattr(os, "posix_fadvise"):
            return
        self._announced = step
        images: Any = self._images
        with open(images.filename, "rb") as file:
            for row in self._order.rows(step, self._places).tolist():
                os.posix_fadvise(file.fileno(), images.offset + row * size, size, os.POSIX_FADV_WILLNEED)

    def _read(self, step: int) -> Images:
        rows, shards = self._order.rows(step, self._places), self._order.shards(step, self._places)
        if shards is None:
            self.announce(step)
            return np.asarray(self._images[rows])
        self._open = {shard.start: self._open[shard.start] for shard in shards if shard.start in self._open}
        self._open |= {shard.start: np.asarray(self._images[shard]) for shard in shards if shard.start not in self._open}
        found = np.empty((len(rows), *self._images.shape[1:]), np.uint8)
        for shard in shards:
            inside = (rows >= shard.start) & (rows < shard.stop)
            found[inside] = self._open[shard.start][rows[inside] - shard.start]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """As a worker gets it: a mapped file by its name, for pickle would copy all of it, and no shard."""
        state = self.__dict__ | {"_open": {}, "_announced": -1}
        if self._mapped:
            images: Any = self._images
            state["_images"] = (images.filename, images.dtype, "r", images.offset, images.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self._mapped:
            self._images = np.memmap(*state["_images"])
