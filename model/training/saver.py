"""Checkpoints beside the training: the step waits for a copy in memory only; a thread hashes, writes and renames it."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from . import checkpoint
from .checkpoint import RunningCheckpoint

Tensors = Mapping[str, Mapping[str, Tensor]]


class Saver:
    """Saves running checkpoints in `folder`, one at a time; the newest `keep` stay.

    It keeps one copy of what is saved, 16 bytes a parameter, as long as it lives. Enter it before saving; leaving it waits for the
    checkpoint under way, so that whoever holds the folder lets go of it only then. What went wrong in the thread, a CheckpointError
    say, is raised by the next `check`, `wait` or `copy`.
    """

    def __init__(self, folder: Path, keep: int, device: torch.device) -> None:
        self._folder, self._keep, self._on_cuda = folder, keep, device.type == "cuda"
        self._copies: dict[str, dict[str, Tensor]] = {}
        self._writing: Future[None] | None = None
        self._began = self._seconds = 0.0

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writing is not None and kind is not None:
            wait([self._writing])  # the error that is under way says more than one of the disk would
            self._writing = None
        self.wait()
        self._thread.shutdown()

    def copy(self, parts: Mapping[str, Iterable[tuple[str, Tensor]]]) -> Tensors:
        """Copy each part's tensors by name to the CPU, over the last copies. On CUDA the host does not wait for the device."""
        self.wait()
        self._began = time.monotonic()
        for part, tensors in parts.items():
            copies = self._copies.setdefault(part, {})
            for name, tensor in tensors:
                if name not in copies:
                    copies[name] = torch.empty_like(tensor, device="cpu", pin_memory=self._on_cuda)
                copies[name].copy_(tensor.detach(), non_blocking=True)
        return self._copies

    def save(self, running: RunningCheckpoint) -> None:
        """Begin to write a checkpoint, whose tensors are `copy`'s or change no more."""
        copied = torch.cuda.current_stream().record_event() if self._on_cuda else None
        self._writing = self._thread.submit(self._write, running, copied)

    def check(self) -> None:
        """Raise what went wrong, if a checkpoint went wrong meanwhile."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint under way; raise what went wrong with it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def seconds(self) -> float:
        """What the last checkpoint took, copy and disk; of one under way, what it took so far."""
        return self._seconds if self._writing is None or self._writing.done() else time.monotonic() - self._began

    def _write(self, running: RunningCheckpoint, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        checkpoint.save(self._folder, running, self._keep)
        self._seconds = time.monotonic() - self._began
