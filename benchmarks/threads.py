"""Threads by the share of the cores beside threads by their number: python -m benchmarks.threads [--quota 1] [--busy 2]

Training steps of `model.size` demo at 8x8, batch 64, each contestant in a process of its own, in turns. `--quota` puts all of them
into a cgroup with so many cores (root; version 1 or 2), `--busy` lets so many processes of Python compute beside them, `--request`
is what the pod asked for. Contestants: (default) PyTorch as it is, (share) pipeline/task/threads.py as it is, (share, spinning) the
same threads with OpenMP's own way to wait, (2 threads, passive) as many threads as cores, which wait without spinning.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.contest import load, rate, ratio, take_turns
from pipeline.task import threads

BATCH, STEPS = 64, 5


def training(environment: Mapping[str, str], share: bool, group: Path | None) -> Callable[[], None]:
    """Some training steps under `environment`, in the cgroup `group`; `share`: with the threads that a task would set."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()), "utf-8")
    os.environ.update(environment)
    if share:
        threads.set_threads()
    for name, value in environment.items():
        if not value:
            os.environ.pop(name, None)

    import numpy as np  # only now, when the environment says how many threads there are
    import torch

    from model.config import SIZES, ModelConfig
    from model.training.options import TrainConfig
    from model.training.trainer import Trainer

    images = np.random.default_rng(0).integers(0, 255, (512, 8, 8, 1), np.uint8)
    depth, dim, heads = SIZES["demo"]
    config = ModelConfig(depth, dim, heads, 8, 8, 1, 2, 128)
    made = Trainer(config, TrainConfig(batch_size=BATCH), images, Path(tempfile.mkdtemp()), torch.device("cpu"))

    def steps() -> None:
        for _ in range(STEPS):
            made._train_step()
            made.step += 1

    return steps


@contextmanager
def quota(cores: float | None) -> Iterator[Path | None]:
    """A cgroup of its own with this quota; None where there is to be none. Needs root."""
    if cores is None:
        yield None
        return
    first = threads.CGROUPS / "cpu"
    group = (first if first.is_dir() else threads.CGROUPS) / f"dier-benchmark-{os.getpid()}"
    group.mkdir()
    try:
        if first.is_dir():
            (group / "cpu.cfs_quota_us").write_text(str(int(cores * 100_000)), "utf-8")
        else:
            (group / "cpu.max").write_text(f"{int(cores * 100_000)} 100000", "utf-8")
        yield group
    finally:
        for worker in multiprocessing.active_children():
            worker.join(30)
        group.rmdir()


def spin() -> None:
    """What a busy neighbour does."""
    while True:
        pass


def main() -> None:
    """Time the contestants and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quota", type=float)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--request")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    asked = {threads.REQUEST: args.request} if args.request else {}
    spinning = {**asked, "OMP_WAIT_POLICY": ""}
    passive = {"OMP_NUM_THREADS": str(threads.cores()), "OMP_WAIT_POLICY": "PASSIVE"}
    neighbours = [multiprocessing.Process(target=spin, daemon=True) for _ in range(args.busy)]
    for one in neighbours:
        one.start()
    before = load()
    with quota(args.quota) as group:
        contestants = {
            "default": partial(training, {}, False, group),
            "share": partial(training, asked, True, group),
            "share, spinning": partial(training, spinning, True, group),
            f"{threads.cores()} threads, passive": partial(training, passive, False, group),
        }
        times = take_turns(contestants, args.rounds)
    for one in neighbours:
        one.terminate()
    print(f"quota {args.quota}, {args.busy} busy processes, request {args.request}: {before} before, {load()} after")
    for name in contestants:
        print(f"{name:20} {rate(times, name, STEPS)} steps/s; rate over that of default {ratio(times, name, 'default')}")


if __name__ == "__main__":
    main()
