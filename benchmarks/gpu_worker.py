"""One training or embedding on a device, measured in the process that runs it (of several, each): what benchmarks/gpu.py starts.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.gpu_worker '{"kind": "train", ...}' result.json

The training is `Trainer.run`, as `dier train` has it, with a callback that looks at the clock; the embedding is `dier embed`'s own
`run`, checks, files and all, the second time in a process. The first process writes the result.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embed import make_inputs
from components import embed
from components.common.peak_memory import peak_memory
from components.common.settings import EmbedSettings
from model.config import SIZES, ModelConfig
from model.device import keep_freed_memory, pick_device
from model.training.callback import Callback
from model.training.distributed import joined, local_device
from model.training.options import TrainConfig
from model.training.trainer import Trainer

EMBED_DIM = 128
T = 300
MOST_IMAGES_BYTES = 2**29
OUT_OF_MEMORY = "out of memory"
KERNELS = 15
"""Rows of a profile."""


@dataclass(frozen=True)
class Work:
    """What to measure: `kind` train or embed; `batch` is over all processes."""

    kind: str
    size: str
    pixels: int
    patch: int
    batch: int
    precision: str
    compiled: bool
    device: str
    steps: int
    """Measured ones; for embed batches."""
    warmup: int = 0
    trace: str | None = None
    """File for a chrome trace of the measured steps, which are slower for it."""

    def model(self) -> ModelConfig:
        """The networks."""
        size = SIZES[self.size]
        return ModelConfig(size.depth, size.dim, size.heads, self.pixels, self.pixels, 3, self.patch, EMBED_DIM)


class Clock(Callback):
    """Times the steps between the first few and the last, and profiles them where that is asked for."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self._work, self._device = work, device
        self._start = self.seconds = 0.0
        self.profile: torch.profiler.profile | None = None
        if work.trace:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
            self.profile = torch.profiler.profile(activities=kinds)

    def on_step(self, trainer: Trainer) -> None:
        """Look at the clock, with the device idle."""
        if trainer.step == self._work.warmup:
            self._wait()
            if self.profile:
                self.profile.start()
            self._start = time.perf_counter()
        elif trainer.step == self._work.warmup + self._work.steps:
            self._wait()
            self.seconds = time.perf_counter() - self._start
            if self.profile:
                self.profile.stop()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def train(work: Work, folder: Path) -> dict[str, Any] | None:
    """Images a second over all processes, seconds a step, peak memory of the first process; None in the others."""
    keep_freed_memory()
    device = local_device(pick_device(work.device))
    steps = work.warmup + work.steps
    config = TrainConfig(
        steps=steps,
        batch_size=work.batch,
        warmup_steps=min(steps, 10),
        precision=work.precision,  # type: ignore[arg-type]
        log_every=steps,
        checkpoint_every=steps,
        checkpoint_minutes=0,
    )
    with joined(device) as processes:
        clock = Clock(work, device)
        arguments = (work.model(), config, _images(work, folder), folder / f"work-{processes.rank}", device)
        trainer = Trainer(*arguments, callbacks=[clock], processes=processes, compiled=work.compiled)
        trainer.run()
        if not processes.first:
            return None
    found: dict[str, Any] = peak_memory(device)
    found |= {"images_per_second": work.batch * work.steps / clock.seconds, "seconds_a_step": clock.seconds / work.steps}
    if clock.profile and work.trace:
        clock.profile.export_chrome_trace(work.trace)
        found["kernels"] = kernels(clock.profile, work.steps, device)
    return found


def embed_images(work: Work, folder: Path) -> dict[str, Any]:
    """Images a second of the whole step, and peak memory."""
    images = work.batch * work.steps
    dataset, model = make_inputs(folder, images, work.pixels, work.size, work.patch, channels=3)
    settings = EmbedSettings.model_validate(
        {"timesteps": [T], "splits": ["test"], "batch_size": work.batch, "device": work.device} | embed_options(work)
    )
    for _ in range(2):
        start = time.perf_counter()
        embed.run(settings, dataset, model, folder / "embeddings")
        seconds = time.perf_counter() - start
    return {"images_per_second": images / seconds} | peak_memory(pick_device(work.device))


def embed_options(work: Work) -> dict[str, Any]:
    """How embed is to compute: the settings that differ from its defaults."""
    options = {"precision": work.precision} if work.precision != "float32" else {}
    return options | ({"compile": "on"} if work.compiled else {})


def kernels(profile: torch.profiler.profile, steps: int, device: torch.device) -> list[dict[str, Any]]:
    """What took the most time of its own, on the GPU where there is one: name, calls and milliseconds a step, share."""
    on_gpu = device.type == "cuda"
    events = [(event, event.self_device_time_total if on_gpu else event.self_cpu_time_total) for event in profile.key_averages()]
    if on_gpu:
        events = [(event, took) for event, took in events if event.device_type == torch.autograd.DeviceType.CUDA]
    whole = sum(took for _, took in events)
    events.sort(key=lambda one: -one[1])
    return [
        {"name": event.key, "calls": event.count / steps, "milliseconds": took / 1000 / steps, "share": took / max(whole, 1e-9)}
        for event, took in events[:KERNELS]
    ]


def _images(work: Work, folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A mapped file of random images, as large as needs be; each process has its own, since none must wait for another."""
    each = work.pixels**2 * 3
    count = max(work.batch, min(20_000, MOST_IMAGES_BYTES // each))
    file = folder / "images.npy"
    rows = np.lib.format.open_memmap(file, "w+", np.uint8, (count, work.pixels, work.pixels, 3))
    generator = np.random.default_rng(0)
    for start in range(0, count, 1000):
        rows[start : start + 1000] = generator.integers(0, 256, rows[start : start + 1000].shape, np.uint8)
    rows.flush()
    found: np.ndarray[Any, np.dtype[np.uint8]] = np.load(file, mmap_mode="r")
    return found


def main() -> None:
    """Measure, and write the result, or that there was too little memory."""
    work, out = Work(**json.loads(sys.argv[1])), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = train(work, Path(folder)) if work.kind == "train" else embed_images(work, Path(folder))
        except torch.OutOfMemoryError:
            out.write_text(json.dumps(asdict(work) | {"error": OUT_OF_MEMORY}), "utf-8")
            raise  # the other processes wait for this one: torchrun ends them
    if found is not None:
        out.write_text(json.dumps(asdict(work) | found), "utf-8")


if __name__ == "__main__":
    main()
