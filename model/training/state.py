"""What a checkpoint holds of a training's tensors, and how they get there and back: whole, whoever holds which shard of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dier import DiER
from .checkpoint import PARTS, RunningCheckpoint, load_optimizer, optimizer_tensors
from .fsdp import like, whole


@dataclass(frozen=True)
class TrainingState:
    """Weights, their average in the order of the weights, the optimizer's state.

    `ask` has the other processes call their `answer`, which they must be free for; None where nothing is in shards.
    """

    model: DiER
    ema: Sequence[Tensor]
    optimizer: torch.optim.Optimizer
    ask: Callable[[str], None] | None = None

    def whole(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """One of checkpoint.PARTS by name, a whole tensor at a time. Shards the first process asks for, and all gather them."""
        if self.ask is not None:
            self.ask(part)
        if part == "optimizer":
            tensors = optimizer_tensors(self.optimizer)
        else:
            weights = dict(self.model.named_parameters())
            tensors = dict(zip(weights, self.ema, strict=True)) if part == "ema" else dict(weights)
        for name, tensor in tensors.items():
            yield name, whole(tensor.detach())

    def answer(self, part: str) -> None:
        """What the others do when the first process asks for a part."""
        for _ in self.whole(part):
            pass

    @torch.no_grad()
    def load(self, running: RunningCheckpoint) -> None:
        """Put all as a checkpoint has it; of what is in shards each process takes its own."""
        weights, ema, optimizer = (running.tensors[part] for part in PARTS)
        parameters = dict(self.model.named_parameters())
        for (name, parameter), average in zip(parameters.items(), self.ema, strict=True):
            parameter.copy_(like(weights[name], parameter))
            average.copy_(like(ema[name], average))
        numbered = list(parameters.values())
        at: dict[str, Tensor] = {}
        for key, value in optimizer.items():  # `step` is a number, the moments are shaped as their parameter
            parameter = numbered[int(key.split(".")[0])]
            at[key] = like(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
        load_optimizer(self.optimizer, at)
