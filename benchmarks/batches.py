"""Images a second from disk to the trainer beside the bare read of the same bytes: python -m benchmarks.batches [--sides 28 224]

For each size a file of random images, read in the trainer's order, `--batch` a step, with a cold page cache (dropped for the file
before each turn) and a warm one. In turns: (bare) `os.preadv` of each row of a step, ascending, into one buffer; (here) a step as
`Batches` reads it when it is needed; (1 worker), (2 workers) the same by its threads; PyTorch's DataLoader with one and two
processes. With --peers, where they are installed: torchdata's nodes with threads and processes, and grain with threads. The
trainer's side only takes the batches, so that there is no other work to hide the reading behind. Bar: 0.80 of bare.
"""

import argparse
import contextlib
import gc
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.contest import Times, load, rate, ratio
from model.device import keep_freed_memory
from model.training.batches import Batches
from model.training.order import make_order
from model.training.shares import Shares

CPU = torch.device("cpu")
Take = Callable[[int], object]


@contextlib.contextmanager
def bare(file: Path, batch: int, steps: int) -> Iterator[Take]:
    """The read alone: the order is made beforehand."""
    images: Any = np.load(file, mmap_mode="r")
    size, offset, order = images[0].nbytes, images.offset, make_order(0, len(images), None, batch, 8)
    rows = [order.rows(step, slice(0, batch)).tolist() for step in range(steps)]
    room = np.empty((batch, size), np.uint8)
    descriptor = os.open(file, os.O_RDONLY)

    def take(step: int) -> None:
        for row, image in zip(rows[step], room, strict=True):
            os.preadv(descriptor, [image], offset + row * size)

    yield take
    os.close(descriptor)


def shares_of(file: Path, batch: int) -> Shares:
    """What a step reads, as `dier train` opens it."""
    images = np.load(file, mmap_mode="r")
    return Shares(images, make_order(0, len(images), None, batch, 8), slice(0, batch))


@contextlib.contextmanager
def ours(file: Path, batch: int, steps: int, workers: int) -> Iterator[Take]:
    """`Batches` with so many workers."""
    with contextlib.closing(Batches(shares_of(file, batch), CPU, workers)) as batches:
        yield batches.take


@contextlib.contextmanager
def loader(file: Path, batch: int, steps: int, workers: int) -> Iterator[Take]:
    """PyTorch's DataLoader over the steps, by processes."""
    found: Any = shares_of(file, batch)
    given = iter(DataLoader(found, batch_size=None, sampler=range(steps), num_workers=workers))
    yield lambda step: next(given)


@contextlib.contextmanager
def torchdata(file: Path, batch: int, steps: int, workers: int, method: str) -> Iterator[Take]:
    """torchdata's ParallelMapper over the steps."""
    nodes = importlib.import_module("torchdata.nodes")
    context = "fork" if method == "process" else None
    mapped = nodes.ParallelMapper(
        nodes.IterableWrapper(range(steps)),
        shares_of(file, batch).__getitem__,
        num_workers=workers,
        method=method,
        multiprocessing_context=context,
    )
    given = iter(nodes.Loader(mapped))
    yield lambda step: next(given)


@contextlib.contextmanager
def grain(file: Path, batch: int, steps: int, workers: int) -> Iterator[Take]:
    """grain's MapDataset over the steps, read by threads."""
    library = importlib.import_module("grain")
    options = library.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
    given = iter(library.MapDataset.range(steps).map(shares_of(file, batch).__getitem__).to_iter_dataset(options))
    yield lambda step: next(given)


CONTESTANTS = {
    "bare": bare,
    "here": partial(ours, workers=0),
    "1 worker": partial(ours, workers=1),
    "2 workers": partial(ours, workers=2),
    "DataLoader, 1 process": partial(loader, workers=1),
    "DataLoader, 2 processes": partial(loader, workers=2),
}
PEERS = {
    "torchdata, 2 threads": partial(torchdata, workers=2, method="thread"),
    "torchdata, 2 processes": partial(torchdata, workers=2, method="process"),
    "grain, 2 threads": partial(grain, workers=2),
}


def make_file(folder: Path, side: int, count: int) -> Path:
    """Random images (count, side, side, 3) in a file, on the disk."""
    file, random = folder / f"{side}.npy", np.random.default_rng(0)
    with file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)})
        for _ in range(count):
            opened.write(random.bytes(side * side * 3))
        opened.flush()
        os.fsync(opened.fileno())
    return file


def drop(file: Path) -> None:
    """Take the file out of the page cache."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def turn(contestant: Any, file: Path, batch: int, steps: int, cold: bool) -> tuple[float, float]:
    """Seconds of one contestant for `steps` steps, once it runs: by the wall clock, and of this process's processors."""
    if cold:
        gc.collect()  # what is still mapped is not dropped
        drop(file)
    first = 8  # steps until workers run and their queues are full, as they are at the end
    with contestant(file, batch, first + steps + 8) as take:
        for step in range(first):
            take(step)
        wall, cpu = time.perf_counter(), time.process_time()
        for step in range(first, first + steps):
            take(step)
        return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Run the contests and print the rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[28, 64, 128, 224], help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--mb", type=int, default=400, help="size of a file at least, of which the system should not read all ahead"
    )
    parser.add_argument("--peers", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    contestants = CONTESTANTS | (PEERS if given.peers else {})
    names = list(contestants)
    print(f"{given.batch} images a step, {given.steps} steps a turn, {given.rounds} rounds")
    for side in given.sides:
        with tempfile.TemporaryDirectory() as folder:
            file = make_file(Path(folder), side, max(given.batch * (given.steps + 16), given.mb * 10**6 // (3 * side**2)))
            for cold in (True, False):
                times: Times = {name: [] for name in names}
                for number in range(given.rounds):
                    for name in names[number % len(names) :] + names[: number % len(names)]:
                        times[name].append(turn(contestants[name], file, given.batch, given.steps, cold))
                print(f"{side}x{side}x3, {'cold' if cold else 'warm'} cache, {load()}: images a second, / bare (middle half)")
                for name in names:
                    own = f"; {1e3 * statistics.median(cpu for _, cpu in times[name]) / given.steps:.2f} CPU ms a step here"
                    print(f"  {name:22s} {rate(times, name, given.batch * given.steps)}  {ratio(times, name, 'bare')}{own}")


if __name__ == "__main__":
    main()
