"""The images of each step on the device: read when they are needed, or by worker processes some steps ahead.

What a step reads is a function of the step, so it makes no difference who reads it and when. From a worker images come through
shared memory. They stay uint8 until they are on the device, for which on CUDA they are pinned and copied without waiting.
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..device import keep_freed_memory
from ..errors import ConfigError, TrainingError
from .shares import Shares

MOST_WORKERS = 4
AHEAD = 2
"""Steps that each worker is ahead."""
SMALL = 4 * 2**20
"""Bytes of a step's images up to which reading them takes no longer than taking them from a worker."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where PyTorch hands tensors from process to process
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Batches:
    """Hands out steps in turn; after a jump workers begin again at the step that was asked for."""

    def __init__(self, shares: Shares, steps: int, device: torch.device, workers: int = 0) -> None:
        self._shares, self._steps, self._device, self._workers = shares, steps, device, workers
        self._iterator: Iterator[Tensor | Exception] | None = None
        self._processes: list[BaseProcess] = []
        self._next = -1

    def take(self, step: int) -> Tensor:
        """The images (n, H, W, C) uint8 of a step, on the device.

        Raises what reading raised, and TrainingError where a worker died.
        """
        found = self._from_worker(step) if self._workers else self._shares[step]
        if isinstance(found, Exception):
            raise found
        if not self._workers:
            self._shares.announce(step + 1)
        if self._device.type == "cuda" and not found.is_pinned():
            found = found.pin_memory()
        return found.to(self._device, non_blocking=True)

    def close(self) -> None:
        """End the workers, whatever they are at: they only read."""
        self._iterator = None  # tells them to end, and waits for them a while
        for process in self._processes:
            process.join(1)
            process.kill()
        self._processes = []

    def _from_worker(self, step: int) -> Tensor | Exception:
        if self._iterator is None or step != self._next:
            self.close()
            self._iterator = self._start(step)
        try:
            found = next(self._iterator)
        except (RuntimeError, OSError, EOFError) as error:  # what reading raised comes as a value
            raise TrainingError(
                f"a process that reads images ended: {str(error).splitlines()[0]}; give more memory, or set train.workers to 0"
            ) from error
        self._next = step + 1
        return found

    def _start(self, step: int) -> Iterator[Tensor | Exception]:
        """Workers are forked from a process that has PyTorch and nothing else: no CUDA, threads or connections of this one's."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        loader = DataLoader(
            self._shares,
            batch_size=None,
            sampler=range(step, max(self._steps, step + 1)),
            num_workers=self._workers,
            prefetch_factor=AHEAD,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_begin_worker,
            multiprocessing_context=context,
            generator=torch.Generator(),  # it draws a seed, which is not to be from the global one
        )
        before = multiprocessing.active_children()
        with _signals_blocked():
            iterator = iter(loader)
        self._processes = [process for process in multiprocessing.active_children() if process not in before]
        return iterator


def choose_workers(asked: int | None, shares: Shares, device: torch.device) -> int:
    """How many workers read for one process: as many as were asked for, or what its cores and the shared memory allow.

    None on a CPU, whose cores are the step's own, and none where images are small. One for shards, as each worker opens them all.
    Raises ConfigError where shared memory does not hold what was asked for.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that share this machine
    free = shutil.disk_usage(SHARED_MEMORY).free // here if SHARED_MEMORY.is_dir() else 2**63
    step = max(1, shares.bytes_a_step)
    if asked is not None:
        needed = (AHEAD * asked + 1) * step if asked else 0
        if needed > free:
            raise ConfigError(
                f"train.workers {asked} need {needed / 2**20:.0f} MiB of shared memory, and {SHARED_MEMORY} has {free / 2**20:.0f} "
                f"free for each process: lower it, or give more (shared_memory in the cluster file)"
            )
        return asked
    if device.type == "cpu" or step <= SMALL:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = 1 if shares.sharded else MOST_WORKERS
    return max(0, min(most, cores // here - 1, (free // step - 1) // AHEAD))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes and threads that begin inside never see SIGINT and SIGTERM: a training that is stopped has a step to end."""
    resource_tracker.ensure_running()  # multiprocessing's own, which unblocks them when it begins
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(number: int) -> None:
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """However it ends: PyTorch watches the process that forked this one, which lives on for as long as this one does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
