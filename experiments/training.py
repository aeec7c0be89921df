"""The one loop that trains the contest's networks but DiER: the Trainer's optimizer, schedule, average, order and random draws."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.contestant import Budget, Features, Look, Setting, Trained
from experiments.networks import count
from model.images import Images, to_tensor
from model.rng import Draws, seed_of
from model.training.options import TrainConfig, ema_decay, learning_rate
from model.training.order import make_order

RECIPE: Mapping[str, Any] = {
    "lr": 1e-3,
    "weight_decay": 0.05,
    "warmup": 0.1,
    "beta2": 0.95,
    "ema_decay": 0.999,
    "grad_clip": 1.0,
}
"""AdamW with a linear warm-up over this share of the steps, then a cosine to 0: what MAE and its followers give a ViT. All are
tuned around it, and all give averaged weights, as DiER does."""


class Learner(nn.Module):
    """Networks and the loss that trains them; whatever is random in it comes from the draws."""

    def forward(self, x0: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """The batch's loss, a scalar; x0 (N, C, H, W) in [-1, 1] are the images at `rows` (N,)."""
        raise NotImplementedError

    def features(self) -> Mapping[str, Features]:
        """What it is trained for."""
        raise NotImplementedError

    def kept(self) -> nn.Module:
        """What the features need; the rest is thrown away."""
        raise NotImplementedError


def train(
    make: Callable[[], Learner], images: Images, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """Train what `make` makes, by a recipe that has the names of RECIPE, on images (N, H, W, C) uint8.

    Raises ValueError where the loss is no number: this setting is lost.
    """
    with seeded(seed):
        learner = make().train()
    if not budget.steps:
        return Trained(learner.eval().features(), 0, 0.0, 0.0, count(learner.kept()))
    config, recipe = _config(budget, seed, setting), dict(setting)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        _groups(parameters), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, recipe["beta2"]), fused=True
    )
    order = make_order(seed, len(images), None, config.batch_size, config.shuffle_shards)
    everyone = slice(0, config.batch_size)

    def loss_of(step: int) -> Tensor:
        rows = order.rows(step, everyone)
        draws = Draws(seed, step, everyone, torch.device("cpu"))
        loss: Tensor = learner(to_tensor(images[rows]), torch.from_numpy(rows), draws)
        return loss

    flops = step_flops(lambda: torch.autograd.backward(loss_of(0)))
    seconds, began = 0.0, time.process_time()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(step)
        if not math.isfinite(loss.item()):
            raise ValueError(f"the loss is {loss.item()} after {step} steps with {recipe}: lower lr")
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - ema_decay(config, step))
        if look is not None and step + 1 in budget.looks:
            seconds += time.process_time() - began
            look(step + 1, _averaged(learner, average).features())
            began = time.process_time()
    seconds += time.process_time() - began
    final = _averaged(learner, average)
    return Trained(final.features(), config.steps, flops * config.steps, seconds, count(final.kept()))


def step_flops(step: Callable[[], object]) -> float:
    """Floating-point operations of a training step's matrix products and convolutions, attention's included."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # what is fused on a CPU is not counted
        step()
    return float(counter.get_total_flops())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers draw their weights from the global generator, which is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "contestant"))
        yield


def _config(budget: Budget, seed: int, setting: Setting) -> TrainConfig:
    """The recipe in the Trainer's own words, so that its functions read it."""
    return TrainConfig(
        steps=budget.steps,
        batch_size=budget.batch_size,
        lr=setting["lr"],
        warmup_steps=round(setting["warmup"] * budget.steps),
        weight_decay=setting["weight_decay"],
        ema_decay=setting["ema_decay"],
        grad_clip=setting["grad_clip"],
        seed=seed,
    )


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and tokens do not, as is usual."""
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _averaged(learner: Learner, average: list[Tensor]) -> Learner:
    """A copy that has the averaged weights, in evaluation mode."""
    made = copy.deepcopy(learner).eval()
    with torch.no_grad():
        for p, mean in zip((p for p in made.parameters() if p.requires_grad), average, strict=True):
            p.copy_(mean)
    return made
