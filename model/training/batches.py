"""The images of each step on the device: read when they are needed, or by threads some steps ahead.

What a step reads is a function of the step, so it makes no difference who reads it and when. Threads do, for reading is copying:
it holds Python's lock for next to nothing, while from a worker process each image is copied once more, through shared memory
(docs/scale.md compares them). Images stay uint8 until they are on the device, for which on CUDA they are pinned and copied
without waiting.
"""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from .shares import Shares

MOST_WORKERS = 4
AHEAD = 2
"""Steps for each worker that are read or being read before they are needed."""
SMALL = 2**20
"""Bytes of a step's images up to which they are read in less time than a step's other work in Python takes."""


class Batches:
    """Hands out steps in turn; after a jump it begins again at the step that was asked for."""

    def __init__(self, shares: Shares, device: torch.device, workers: int = 0) -> None:
        self._shares, self._device, self._workers = shares, device, workers
        self._threads: ThreadPoolExecutor | None = None
        self._begun: deque[Future[Tensor]] = deque()
        self._next = -1

    def take(self, step: int) -> Tensor:
        """The images (n, H, W, C) uint8 of a step, on the device. Raises what reading raised."""
        found = self._from_thread(step) if self._workers else self._read(step)
        if not self._workers:
            self._shares.announce(step + 1)
        return found.to(self._device, non_blocking=True)

    def close(self) -> None:
        """End the threads, each with the step that it is at."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._threads = None
        self._begun.clear()

    def _from_thread(self, step: int) -> Tensor:
        if self._threads is None or step != self._next:
            self.close()
            self._threads = ThreadPoolExecutor(self._workers, "images", initializer=self._set_device)
            self._next = step
        while len(self._begun) <= AHEAD * self._workers:
            self._begun.append(self._threads.submit(self._read, self._next + len(self._begun)))
        self._next += 1
        return self._begun.popleft().result()

    def _read(self, step: int) -> Tensor:
        found = self._shares[step]
        return found.pin_memory() if self._device.type == "cuda" else found

    def _set_device(self) -> None:
        if self._device.type == "cuda" and self._device.index is not None:  # without one it is the first, as in any thread
            torch.cuda.set_device(self._device)  # a thread's own; pinning would else open the first GPU


def choose_workers(asked: int | None, shares: Shares, device: torch.device) -> int:
    """How many threads read for one process: as many as were asked for, else what its cores allow.

    None on a CPU, whose cores are the step's own, and none where images are small. One for shards, of which it holds the open ones.
    """
    if asked is None and (device.type == "cpu" or shares.bytes_a_step <= SMALL):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that share this machine
    found = max(1, min(MOST_WORKERS, cores // here - 1)) if asked is None else asked
    return min(1, found) if shares.sharded else found
