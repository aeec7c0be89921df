"""The training loop: L_simple end to end through both networks, EMA, running checkpoints, one curve."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint import Running, load_optimizer, load_running, optimizer_tensors, save_running
from .config import NUM_TIMESTEPS, ModelConfig
from .dier import DiER
from .health import check_point
from .pixels import Images, to_tensor
from .randomness import generator, sample_order

BUCKETS = 5
"""The curve splits the loss into this many equal ranges of t."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Meanings and units stand with `params.yaml`'s schema."""

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    lr_decay: str
    weight_decay: float
    ema_decay: float
    grad_clip: float
    seed: int
    precision: str
    log_every: int
    checkpoint_every: int


Point = dict[str, float]
"""One row of the curve: step, loss, loss per bucket of t, lr, gradient norms."""


@dataclass
class Watch:
    """Who is told what while training runs."""

    point: Callable[[Point, float], None] = lambda point, rate: None
    """Called every `log_every` steps with the curve's row and images per second."""
    step: Callable[[int], None] = lambda step: None
    """Called after every step."""
    say: Callable[[str], None] = lambda message: None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up from lr / warmup_steps, then constant or a cosine to 0. `step` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_decay == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(config: TrainConfig, step: int) -> float:
    """The average's decay, smaller in the first steps so that it forgets the initial weights."""
    return min(config.ema_decay, (1 + step) / (10 + step))


@dataclass
class Trainer:
    """Trains on images (N, H, W, C) uint8, any array that takes a sorted index array; checkpoints go to `work`."""

    model_config: ModelConfig
    config: TrainConfig
    images: Images
    work: Path
    device: torch.device
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        self.model = DiER(self.model_config).to(self.device)
        self.parameters = list(self.model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.step = 0
        self.curve: list[Point] = []
        self._forget_window()

    def run(self) -> None:
        """Train from the newest checkpoint to the last step. Raises TrainingError when training goes wrong."""
        self._resume()
        self.model.train()
        while self.step < self.config.steps:
            self._train_step()
            self.step += 1
            self._tell_watch()
            last = self.step == self.config.steps
            if last or self.step % self.config.log_every == 0:
                self._log()
            if last or self.step % self.config.checkpoint_every == 0:
                self._checkpoint()

    def ema_weights(self) -> dict[str, Tensor]:
        """The averaged weights by name: what is exported."""
        return {name: tensor for (name, _), tensor in zip(self.model.named_parameters(), self.ema, strict=True)}

    def ema_model(self) -> DiER:
        """The model with its averaged weights, in evaluation mode."""
        model = DiER(self.model_config).to(self.device)
        model.load_state_dict(self.ema_weights())
        return model.eval()

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images (N, C, H, W), timesteps (N,) and noise (N, C, H, W) of a step: a function of (seed, step) alone."""
        config = self.config
        chosen = np.sort(sample_order(config.seed, len(self.images), step * config.batch_size, config.batch_size))
        x0 = to_tensor(self.images[chosen], self.device)
        t = torch.randint(NUM_TIMESTEPS, (len(x0),), generator=generator(config.seed, "t", step))
        noise = torch.randn(x0.shape, generator=generator(config.seed, "noise", step))
        return x0, t.to(self.device), noise.to(self.device)

    def _train_step(self) -> None:
        x0, t, noise = self.batch(self.step)
        lr = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self._autocast():
            losses = self.model(x0, t, noise)  # (N,)
        self.optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        norms = torch.stack([_gradient_norm(part) for part in (self.model.encoder, self.model.denoiser)])  # (2,)
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.grad_clip, norms.norm())
        self.optimizer.step()
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1 - ema_decay(self.config, self.step))

        bucket = t * BUCKETS // NUM_TIMESTEPS  # (N,)
        self._loss_sum.index_add_(0, bucket, losses.detach())
        self._loss_count.index_add_(0, bucket, torch.ones_like(losses))
        self._norm_sum += norms.detach()
        self._window_steps += 1

    def _tell_watch(self) -> None:
        """Whoever watches may take their time: it does not count as training time."""
        began = time.perf_counter()
        self.watch.step(self.step)
        self._window_start += time.perf_counter() - began

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _log(self) -> None:
        """Close the window of steps since the last point. The only place where the device is waited for."""
        sums, counts, norms = self._loss_sum.tolist(), self._loss_count.tolist(), self._norm_sum.tolist()
        width = NUM_TIMESTEPS // BUCKETS
        point: Point = {"step": self.step, "loss": sum(sums) / sum(counts)}
        for i, (total, count) in enumerate(zip(sums, counts, strict=True)):
            point[f"loss_t{i * width:03d}_{(i + 1) * width - 1:03d}"] = total / count if count else point["loss"]
        point["lr"] = learning_rate(self.config, self.step - 1)
        for part, norm in zip(("encoder", "denoiser"), norms, strict=True):
            point[f"grad_norm_{part}"] = norm / self._window_steps
        rate = self._window_steps * self.config.batch_size / (time.perf_counter() - self._window_start)
        check_point(point, self.step - self.config.warmup_steps, self.curve)
        self.curve.append(point)
        self.watch.point(point, rate)
        self._forget_window()

    def _forget_window(self) -> None:
        self._loss_sum = torch.zeros(BUCKETS, device=self.device)
        self._loss_count = torch.zeros(BUCKETS, device=self.device)
        self._norm_sum = torch.zeros(2, device=self.device)
        self._window_steps = 0
        self._window_start = time.perf_counter()

    def _checkpoint(self) -> None:
        window = {"loss_sum": self._loss_sum, "loss_count": self._loss_count, "norm_sum": self._norm_sum}
        names = [name for name, _ in self.model.named_parameters()]
        tensors: dict[str, Tensor] = {f"weights.{name}": p for name, p in zip(names, self.parameters, strict=True)}
        tensors |= {f"ema.{name}": p for name, p in zip(names, self.ema, strict=True)}
        tensors |= {f"optimizer.{name}": p for name, p in optimizer_tensors(self.optimizer).items()}
        tensors |= {f"window.{name}": p for name, p in window.items()}
        save_running(self.work, Running(self.step, tensors, {"curve": self.curve, "window_steps": self._window_steps}))

    def _resume(self) -> None:
        running, damaged = load_running(self.work)
        for name in damaged:
            self.watch.say(f"train: the checkpoint {name} is damaged; falling back to the one before")
        if running is None:
            return
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimizer": {}, "window": {}}
        for key, tensor in running.tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = tensor.to(self.device)
        self.model.load_state_dict(parts["weights"])
        self.ema = [parts["ema"][name] for name, _ in self.model.named_parameters()]
        load_optimizer(self.optimizer, parts["optimizer"])
        self._loss_sum, self._loss_count, self._norm_sum = (parts["window"][k] for k in ("loss_sum", "loss_count", "norm_sum"))
        self.step, self.curve, self._window_steps = running.step, running.facts["curve"], running.facts["window_steps"]
        self.watch.say(f"train: going on from the checkpoint of step {self.step}")


def _gradient_norm(module: torch.nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
