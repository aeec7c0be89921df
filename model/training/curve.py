"""The training curve: sums over the steps since the last point, and the file of rates beside the checkpoints."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic import write_whole
from ..config import NUM_TIMESTEPS
from .checkpoint import refused
from .distributed import Processes

BUCKETS = 5
"""The curve splits the loss into this many equal ranges of t."""
PARTS = ("encoder", "denoiser")
SUMS = {"loss_sum": BUCKETS, "loss_count": BUCKETS, "norm_sum": len(PARTS)}

Point = dict[str, float]
"""One row of the curve: step, loss, loss per bucket of t, lr, gradient norms."""


class Window:
    """What is summed since the last point, on the device: adding a step does not wait for it, making a point does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        """Start anew, the clock included."""
        self.restore({"steps": 0} | {name: [0.0] * size for name, size in SUMS.items()})

    def add(self, t: Tensor, losses: Tensor, norms: Tensor) -> None:
        """One step: its timesteps (N,), the losses of its images (N,), the two networks' gradient norms (2,)."""
        bucket = t * BUCKETS // NUM_TIMESTEPS  # (N,)
        self._sums["loss_sum"].index_add_(0, bucket, losses.detach())
        self._sums["loss_count"].index_add_(0, bucket, torch.ones_like(losses))
        self._sums["norm_sum"] += norms.detach()
        self.steps += 1
        self._timed += len(losses)

    def merge(self, processes: Processes) -> None:
        """Gather the losses of all processes in the first one; the others' begin anew. Gradient norms are everybody's alike."""
        for name in ("loss_sum", "loss_count"):
            total = processes.total(self._sums[name])
            self._sums[name] = total if processes.first else torch.zeros_like(total)

    def point(self, step: int, lr: float) -> Point:
        """The window's means as a row of the curve."""
        sums, counts, norms = (self._sums[name].tolist() for name in SUMS)
        span = NUM_TIMESTEPS // BUCKETS
        point: Point = {"step": step, "loss": sum(sums) / sum(counts)}
        for i, (total, count) in enumerate(zip(sums, counts, strict=True)):
            point[f"loss_t{i * span:03d}_{(i + 1) * span - 1:03d}"] = total / count if count else point["loss"]
        point["lr"] = lr
        for part, norm in zip(PARTS, norms, strict=True):
            point[f"grad_norm_{part}"] = norm / self.steps
        return point

    def rate(self) -> float:
        """Images per second, of those that this process trained on: a window may have begun in one that was stopped."""
        return self._timed / (time.perf_counter() - self._start)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What takes time in here does not count for the rate."""
        began = time.perf_counter()
        yield
        self._start += time.perf_counter() - began

    def state(self) -> dict[str, Any]:
        """Everything but the clock, as JSON; a float32 survives that bit for bit."""
        return {"steps": self.steps} | {name: tensor.tolist() for name, tensor in self._sums.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.steps = int(state["steps"])
        self._sums = {name: torch.tensor(state[name], dtype=torch.float32, device=self._device) for name in SUMS}
        self._timed, self._start = 0, time.perf_counter()


class Rates:
    """`step,images per second,Unix time`, a line a point. Wall-clock, so it is beside the checkpoints and in no artifact."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, step: int, rate: float) -> None:
        """Append a line. Raises CheckpointError where the disk refuses."""
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{step},{rate:.1f},{time.time():.0f}\n")
        except OSError as error:
            raise refused(error, self._file.name, self._file.parent) from error

    def cut(self, step: int) -> None:
        """Drop what lies after `step`, where training goes on from, and a line that was cut off."""
        if not self._file.is_file():
            return
        lines = self._file.read_text("utf-8", errors="replace").splitlines(keepends=True)
        until = [line for line in lines if line.endswith("\n") and _step(line) <= step]
        if until == lines:
            return
        try:
            write_whole(self._file, "".join(until))
        except OSError as error:
            raise refused(error, self._file.name, self._file.parent) from error


def _step(line: str) -> float:
    first, *rest = line.split(",")
    return int(first) if first.isdigit() and len(rest) == 2 else float("inf")
