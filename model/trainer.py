"""The training loop: L_simple end to end through both networks, EMA, running checkpoints, one curve."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import load_optimizer, optimizer_tensors
from .config import NUM_TIMESTEPS, ModelConfig
from .curve import Point, Rates, Window
from .dier import DiER
from .errors import Stopped
from .health import check_finite, check_point
from .pixels import Images, to_tensor
from .randomness import generator, sample_order
from .running import Running, hold, newest, save


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
    checkpoint_minutes: float | None = None
    keep_checkpoints: int = 2


@dataclass
class Watch:
    """Who is told what while training runs."""

    point: Callable[[Point, float], None] = lambda point, rate: None
    """Called every `log_every` steps with the curve's row and images per second."""
    step: Callable[[int], None] = lambda step: None
    """Called after every step."""
    say: Callable[[str], None] = lambda message: None
    stop: Callable[[], int] = lambda: 0
    """Asked after every step: the number of the signal that wants training to stop, 0 = go on."""


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
    """Trains on images (N, H, W, C) uint8, any array that takes a sorted index array; checkpoints go to `work`.

    `facts` is what the weights depend on, by name (see `model.running`): a checkpoint made of others is refused.
    """

    model_config: ModelConfig
    config: TrainConfig
    images: Images
    work: Path
    device: torch.device
    watch: Watch = field(default_factory=Watch)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = DiER(self.model_config).to(self.device)
        self.parameters = list(self.model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.step = 0
        self.curve: list[Point] = []
        self.window = Window(self.device)
        self.rates = Rates(self.work / "rates.csv")

    def run(self) -> None:
        """Train from the newest checkpoint to the last step.

        Raises TrainingError when training goes wrong, CheckpointError (one of these) when checkpoints can be neither read nor
        written, and Stopped when `watch.stop` asked for it: everything up to then is saved.
        """
        with hold(self.work):
            self._resume()
            self.model.train()
            while self.step < self.config.steps:
                self._train_step()
                self.step += 1
                self.watch.step(self.step)
                last, stop = self.step == self.config.steps, self.watch.stop()
                if last or self.step % self.config.log_every == 0:
                    self._log()
                if last or stop or self._checkpoint_due():
                    self._save()
                if stop:
                    raise Stopped(f"stopped after step {self.step}, which is saved: the same command goes on from there", stop)

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

        self.window.add(t, losses, norms)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _log(self) -> None:
        """Close the window of steps since the last point. Only here and in saving is the device waited for."""
        point = self._point()
        check_point(point, self.step - self.config.warmup_steps)
        rate = self.window.rate()
        self.curve.append(point)
        self.rates.add(self.step, rate)
        self.watch.point(point, rate)
        self.window.clear()

    def _point(self) -> Point:
        return self.window.point(self.step, learning_rate(self.config, self.step - 1))

    def _checkpoint_due(self) -> bool:
        minutes = self.config.checkpoint_minutes
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return late or self.step % self.config.checkpoint_every == 0

    def _save(self) -> None:
        """Save a running checkpoint. The one place that does: of several processes, one comes here and holds the folder."""
        if self.window.steps:
            check_finite(self._point())
        tensors: dict[str, Mapping[str, Tensor]] = {
            "weights": dict(self.model.named_parameters()),
            "ema": self.ema_weights(),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        state = {"curve": self.curve, "window": self.window.state()}
        save(self.work, Running(self.step, tensors, state, self.facts), self.config.keep_checkpoints)
        self._saved_at = time.monotonic()

    def _resume(self) -> None:
        """Put everything as it was at the newest whole checkpoint; the logs are cut back to it."""
        running = newest(self.work, self.facts, self.config.keep_checkpoints, self.watch.say)
        if running is not None:
            weights, ema, optimizer = (
                {name: tensor.to(self.device) for name, tensor in running.tensors[part].items()}
                for part in ("weights", "ema", "optimizer")
            )
            self.model.load_state_dict(weights)
            self.ema = [ema[name] for name, _ in self.model.named_parameters()]
            load_optimizer(self.optimizer, optimizer)
            self.step, self.curve = running.step, running.state["curve"]
            self.window.restore(running.state["window"])
            self.watch.say(f"train: going on from the checkpoint of step {self.step}")
        self.rates.cut(self.step)
        self._saved_at = time.monotonic()


def _gradient_norm(module: torch.nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
