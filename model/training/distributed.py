"""Several processes that train one model, as torchrun starts them: who this one is, what it shares, and what all agree on.

What a step draws is a function of (seed, step, place in the global batch); a process computes its own places and no others. So the
samples do not depend on how many there are, and gradients and losses only by the order in which floats are summed.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=10)
"""For one exchange. A dead process is noticed at once, by its closed connection; this is for one that hangs."""


class Processes:
    """The processes of a training; alone where torchrun did not start this one."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The places of a global batch that are this process's: contiguous, and all are somebody's."""
        return slice(batch_size * self.rank // self.count, batch_size * (self.rank + 1) // self.count)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with its gradients averaged over processes during backward; all start from the first one's weights."""
        if self.count == 1:
            return model
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def exchange(self, network: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[object]:
        """Around a micro-batch: gradients go round with the `last` one only."""
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

    def largest(self, number: int, device: torch.device) -> int:
        """The largest of everybody's numbers: what one wants, all do."""
        if self.count == 1:
            return number
        shared = torch.tensor(number, device=device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def equal(self, number: int, device: torch.device) -> bool:
        """Whether everybody's number is the same."""
        return self.largest(number, device) == number == -self.largest(-number, device)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


def local_device(device: torch.device) -> torch.device:
    """This process's own device: of several GPUs, the one with its number on this machine."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, MASTER_ADDR ... in the environment), or go on alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    own: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        own["device_id"] = device
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT, **own)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
