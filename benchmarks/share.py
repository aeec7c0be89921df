"""What a step's batch costs one of several processes: python -m benchmarks.share [--side 224] [--channels 3] [--batch 1024]

One global batch, trained by 1, 2, 4 and 8 processes. For one of them, alone on this machine: the bytes of random numbers that it
draws and of images that it reads for a step, and the CPU seconds that `Trainer.batch` takes, in turns; beside it the way it
was done before: each process drew for the whole batch and took its part. Images are random, in a
mapped file that is in the page cache.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.contest import load
from model import rng
from model.config import NUM_TIMESTEPS
from model.device import keep_freed_memory
from model.images import scaled
from model.training.batches import Batches
from model.training.distributed import Processes
from model.training.options import TrainConfig
from model.training.order import make_order
from model.training.shares import Shares
from model.training.trainer import Trainer

COUNTS = (1, 2, 4, 8)
CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor, Tensor]


def own_share(images: npt.NDArray[np.uint8], batch: int, count: int) -> Callable[[int], Batch]:
    """`Trainer.batch` of one of `count` processes, in the middle, without a model and without the others."""
    config, processes = TrainConfig(batch_size=batch), Processes(count // 2, count)
    shares = Shares(images, make_order(0, len(images), None, batch, config.shuffle_shards), processes.share(batch))
    process: Any = SimpleNamespace(config=config, processes=processes, device=CPU, batches=Batches(shares, CPU))
    return partial(Trainer.batch, process)


def whole_batch(images: npt.NDArray[np.uint8], batch: int, count: int) -> Callable[[int], Batch]:
    """The same share as it was made before: drawn for the whole batch."""
    share = Processes(count // 2, count).share(batch)

    def make(step: int) -> Batch:
        chosen = np.sort(rng.sample_order(0, len(images), step * batch, batch))
        x0 = scaled(torch.from_numpy(np.asarray(images[chosen[share]])))
        t = torch.randint(NUM_TIMESTEPS, (batch,), generator=rng.generator(0, "t", step))
        noise = torch.randn((batch, *x0.shape[1:]), generator=rng.generator(0, "noise", step))
        return x0, t[share], noise[share]

    return make


def drawn_bytes(make: Callable[[int], Batch], image: int) -> int:
    """Counted: chunks that `make` draws of t (int64) and noise (float32) for a step, times their sizes."""
    seen: list[str] = []
    real = rng.seed_of

    def counted(seed: int, *what: str | int) -> int:
        seen.append(str(what[0]))
        return real(seed, *what)

    with patch.object(rng, "seed_of", counted):
        make(0)
    return rng.CHUNK * (8 * seen.count("t") + 4 * image * seen.count("noise"))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1024, help="images a step, over all processes")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    shape = (2 * given.batch, given.side, given.side, given.channels)
    image = given.side * given.side * given.channels
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "images.npy"
        np.save(file, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        images = np.load(file, mmap_mode="r")
        ways = {"own": own_share, "whole": whole_batch}
        makers = {(way, count): make(images, given.batch, count) for way, make in ways.items() for count in COUNTS}
        seconds: dict[tuple[str, int], list[float]] = {key: [] for key in makers}
        for step in range(given.rounds + 1):
            for key, make in makers.items():
                start = time.process_time()
                make(step)
                if step:  # the first round reads the file into the page cache
                    seconds[key].append(time.process_time() - start)
        drawn = {count: drawn_bytes(makers["own", count], image) for count in COUNTS}
    print(f"batch {given.batch} of {given.channels}x{given.side}x{given.side}, one thread, {given.rounds} rounds, {load()}")
    print("processes | MB drawn (before) | MB read | CPU s, median (least .. most) | of 1 process's, x N | before, CPU s")
    before = given.batch * (8 + 4 * image)
    alone = statistics.median(seconds["own", 1])
    for count in COUNTS:
        read = len(range(given.batch)[Processes(count // 2, count).share(given.batch)]) * image
        own, whole = seconds["own", count], statistics.median(seconds["whole", count])
        middle = statistics.median(own)
        cells = [f"{drawn[count] / 1e6:.3f} ({before / 1e6:.3f})", f"{read / 1e6:.3f}"]
        cells += [f"{middle:.5f} ({min(own):.5f} .. {max(own):.5f})", f"{middle * count / alone:.2f}", f"{whole:.5f}"]
        print(f"{count} | " + " | ".join(cells))


if __name__ == "__main__":
    main()
