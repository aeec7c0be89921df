"""Several processes that train one model, as torchrun starts them: who this one is, what it shares, and what all agree on.

What a step draws is a function of (seed, step, place in the global batch); a process computes its own places and no others. So the
samples do not depend on how many there are, and gradients and losses only by the order in which floats are summed.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""For one collective operation. A dead process is noticed at once, by its closed connection; this is for one that hangs."""
FIRST_TIMEOUT = timedelta(hours=2)
"""For what the first process does alone while the others wait: evaluations, saving, reading a checkpoint."""
LEAD = 100
"""Steps that the first process is ahead of another one at most: they agree, and so wait for each other, more often."""


class Processes:
    """The processes of a training; alone where torchrun did not start this one."""

    def __init__(self, rank: int = 0, count: int = 1, store: Store | None = None) -> None:
        self.rank, self.count, self._store = rank, count, store
        self._turn = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The places of a global batch that are this process's: contiguous, and all are somebody's."""
        return slice(batch_size * self.rank // self.count, batch_size * (self.rank + 1) // self.count)

    def pieces(self, batch_size: int, most: int | None) -> int:
        """In how many micro-batches of at most so many images each process takes its share, all in as many.

        What FSDP gathers for a micro-batch all must ask for, and shares differ by an image. None is empty: where shares of n and
        n + 1 images are taken one by one, one micro-batch of the larger has two.
        """
        least, largest = batch_size // self.count, -(-batch_size // self.count)
        return max(1, min(least, -(-largest // (most or largest))))

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with its gradients averaged over processes during backward; all start from the first one's weights."""
        if self.count == 1:
            return model
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def gradient_sync(self, network: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[object]:
        """Around a micro-batch: gradients are averaged over processes with the `last` one only."""
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        return contextlib.nullcontext()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count == 1:
            return tensor
        copy = tensor.clone()
        dist.all_reduce(copy)
        return copy

    def largest(self, numbers: Sequence[float], device: torch.device) -> list[float]:
        """Of each number the largest of everybody's: what one wants, all do."""
        if self.count == 1:
            return list(numbers)
        shared = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        found: list[float] = shared.tolist()
        return found

    def equal(self, number: int, device: torch.device) -> bool:
        """Whether everybody's number is the same."""
        high, low = self.largest([number, -number], device)
        return high == number == -low

    def wait_for_first(self, answer: Callable[[str], None] | None = None) -> None:
        """Called by all, as often: the others wait here until the first process has come as far, for hours if need be.

        Meanwhile they `answer` what it asks. In a collective operation they would wait for COLLECTIVE_TIMEOUT at most, and then end
        the training.
        """
        if self.first:
            self._tell("")
            return
        while asked := self._hear():
            assert answer is not None
            answer(asked)

    def ask(self, what: str) -> None:
        """By the first process while the others wait for it: they `answer` to `what`. In the others it does nothing."""
        if self.first:
            self._tell(what)

    def meet(self) -> None:
        """Called by all: none goes on before all have come as far. The store is in the first process, which must not end sooner."""
        if self.count > 1:
            dist.barrier()

    def _tell(self, what: str) -> None:
        if self._store is not None:
            self._turn += 1
            self._store.set(f"turn-{self._turn}", what)
            self._store.delete_key(f"turn-{self._turn - LEAD}")

    def _hear(self) -> str:
        assert self._store is not None
        self._turn += 1
        self._store.wait([f"turn-{self._turn}"], FIRST_TIMEOUT)
        return str(self._store.get(f"turn-{self._turn}").decode())


def first_on_node() -> bool:
    """Whether this is the process that does on its machine what needs to be done there once, such as checking a dataset."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def local_device(device: torch.device) -> torch.device:
    """This process's own device: of several GPUs, the one with its number on this machine."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, MASTER_ADDR ... in the environment), or go on alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    own: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        own["device_id"] = device
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, count = next(iter(rendezvous("env://", timeout=FIRST_TIMEOUT)))
    store.set(f"ready-{rank}", "")  # the first one on a node checks the dataset, for as long as its disk takes
    store.wait([f"ready-{other}" for other in range(count)], FIRST_TIMEOUT)
    store.set_timeout(COLLECTIVE_TIMEOUT)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=COLLECTIVE_TIMEOUT, **own)
    try:
        yield Processes(rank, count, PrefixStore("dier", store))
    finally:
        dist.destroy_process_group()
