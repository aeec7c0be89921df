"""Contestants timed in turn, so that a busy machine slows them alike: what the benchmarks share."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Protocol


class Steps(Protocol):
    """A training, step by step."""

    step: int

    def _train_step(self) -> None: ...


Times = dict[str, list[tuple[float, float]]]
"""Per contestant and round: seconds by the wall clock, and of its process's processors."""


def take_turns(contestants: Mapping[str, Callable[[], Callable[[], object]]], rounds: int) -> Times:
    """Time each contestant once a round; who goes first changes from round to round.

    A contestant is a function of a module that makes what is timed; it is called in a process of its own, so that none inherits
    another's memory or threads. Those whose turn it is not wait and use no processor.
    """
    spawn = multiprocessing.get_context("spawn")
    workers: dict[str, Connection] = {}
    for name, make in contestants.items():
        here, there = spawn.Pipe()
        spawn.Process(target=_work, args=(make, there), daemon=True).start()
        workers[name] = here
        here.recv()  # made and warmed up, before the next one starts
    names = list(contestants)
    times: Times = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            workers[name].send(True)
            times[name].append(workers[name].recv())
    for worker in workers.values():
        worker.send(False)
    return times


def _work(make: Callable[[], Callable[[], object]], pipe: Connection) -> None:
    contestant = make()
    for _ in range(3):  # compilation included
        contestant()
    pipe.send(True)
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        contestant()
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))


def ratio(times: Times, name: str, other: str, clock: int = 0) -> str:
    """How many times the rate of `other` that of `name` is: the median over the rounds, and the middle half of them."""
    each = [theirs[clock] / ours[clock] for ours, theirs in zip(times[name], times[other], strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return f"{middle:.3f} ({low:.3f} .. {high:.3f})"


def rate(times: Times, name: str, images: int) -> str:
    """Images a second by the wall clock: median and best."""
    walls = [wall for wall, _ in times[name]]
    return f"{images / statistics.median(walls):7.1f} (best {images / min(walls):.1f})"


def load() -> str:
    """How busy the machine is: runnable processes on average over the last minute, of how many processors."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
