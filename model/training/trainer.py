"""The training loop: L_simple end to end through both networks, EMA, running checkpoints, one curve."""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import NUM_TIMESTEPS, ModelConfig
from ..dier import DiER
from ..errors import CheckpointError, Stopped
from ..images import Images, scaled, to_tensor
from ..objective import loss_weight, timestep_shares, trivial_loss
from ..rng import SAMPLE_SHARDS, Draws
from ..schedule import alpha_bars
from .augment import vary
from .batches import Batches, choose_workers
from .callback import Callback
from .checkpoint import BEST, PARTS, RunningCheckpoint, hold, newest
from .curve import Point, Rates, Window
from .distributed import Processes
from .divergence import TRIVIAL_LOSS, check_finite, check_point
from .fsdp import local, shard
from .options import TrainConfig, ema_decay, learning_rate
from .order import make_order
from .precision import autocast, products
from .run_configuration import RunConfiguration
from .saver import Saver
from .shares import Shares
from .state import TrainingState
from .variance_covariance import v_gradients

AGREE_STEPS, AGREE_S = 20, 2.0
"""Several processes agree on stopping once in so many steps, and more often where these take longer than so many seconds."""
SAVING_SHARE = 0.02
"""Of its time a training spends at most so much on checkpoints by the clock: large ones on a slow disk are further apart."""
SAMPLE = 256
"""Images, evenly spaced over all or over so many shards, whose variance says what a trivial guess costs."""
WHITENED = 500
"""Images, chosen in the same way, from which a ResNet encoder's whitening is computed."""


@dataclass(frozen=True)
class Best:
    """The averaged weights, on the CPU, of the step that scored best so far."""

    step: int
    score: float
    weights: Mapping[str, Tensor]


@dataclass
class Trainer:
    """Trains on images (N, H, W, C) uint8, any array that takes a sorted index array; checkpoints go to `work`. `shards` are the
    ranges of images that lie in one file, where there are several.

    `run_configuration` is what the weights depend on, by name: a checkpoint of another one is refused. `compiled` says
    whether the blocks are, which `model.training.compiling` decides; `fsdp` whether each of several processes holds a shard of
    the training's state or all of it, which `model.training.fsdp` decides.
    """

    model_config: ModelConfig
    config: TrainConfig
    images: Images
    work: Path
    device: torch.device
    callbacks: Iterable[Callback] = ()
    run_configuration: RunConfiguration = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    compiled: bool = False
    fsdp: bool = False
    shards: Sequence[slice] | None = None

    def __post_init__(self) -> None:
        self.model = DiER(self.model_config).to(self.device)
        self._fit_frozen()
        if self.compiled:
            self.model.compile_blocks(varying_tokens=self.config.mask_ratio > 0)
        if self.config.checkpoint_activations:
            self.model.checkpoint_activations()
        if self.fsdp:
            shard(self.model, self.processes.count, self.device, self.config.precision)
        self.network = self.model if self.fsdp else self.processes.wrap(self.model, self.device)
        self.parameters = list(self.model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.state = TrainingState(self.model, self.ema, self.optimizer, self.processes.ask if self.fsdp else None)
        self.weight = loss_weight(self.config.loss_weight, self.model_config.prediction, alpha_bars(self.model_config.schedule))
        if self.weight is not None:
            self.weight = self.weight.to(self.device)  # (NUM_TIMESTEPS,)
        self.shares = self._shares()
        self.up_to = None if self.shares is None else self.shares.cumsum(0)  # (NUM_TIMESTEPS,), the share of all t up to each
        self.trivial = self._trivial() if self.processes.first else TRIVIAL_LOSS  # only the first looks, and it reads images
        self.step = self._agreed = self._agree_at = 0
        self._saved_at = self._agreed_at = time.monotonic()
        self.saver = Saver(self.work, self.config.keep_checkpoints, self.device)
        self.curve: list[Point] = []
        self.best: Best | None = None
        self._gathered: tuple[int, dict[str, Tensor]] | None = None
        self.window = Window(self.device)
        self.rates = Rates(self.work / "rates.csv")
        config = self.config
        order = make_order(config.seed, len(self.images), self.shards, config.batch_size, config.shuffle_shards)
        shares = Shares(self.images, order, self.processes.share(config.batch_size))
        self.batches = Batches(shares, self.device, choose_workers(config.workers, shares, self.device))

    def run(self) -> None:
        """Train from the newest checkpoint to the last step.

        Raises TrainingError when training goes wrong, CheckpointError (one of these) when checkpoints can be neither read nor
        written, and Stopped when a callback asked for it: everything up to then is saved.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(self.batches))
            stack.enter_context(products(self.config.precision, self.device))
            if self.processes.first:
                stack.enter_context(hold(self.work))
                stack.enter_context(self.saver)
            self._resume()
            self.model.train()
            stop = 0
            while self.step < self.config.steps:
                self._train_step()
                self.step += 1
                stop, late = self._agree()
                last = self.step == self.config.steps
                log = last or self.step % self.config.log_every == 0
                save = last or bool(stop) or late or self.step % self.config.checkpoint_every == 0
                if log or save:
                    self.window.merge(self.processes)
                if self.processes.first:
                    self._after_step(log=log, save=save, end=last or bool(stop))
                elif log:
                    self.window.clear()
                if save:
                    self._saved_at = time.monotonic()
                self.processes.wait_for_first(self.state.answer)
                if stop:
                    break
            if self.fsdp and self.processes.first:
                self.ema_weights()  # while the others are there to give theirs
            self.processes.wait_for_first(self.state.answer)
            self.processes.meet()
            if stop:
                raise Stopped(f"stopped after step {self.step}, which is saved: the same command goes on from there", stop)

    def ema_weights(self) -> dict[str, Tensor]:
        """The averaged weights by name: what is exported. For the first process, and at any time but amid a step.

        Sharded ones are gathered on the CPU, once a step, from the others, which wait for the first process then.
        """
        names = [name for name, _ in self.model.named_parameters()]
        if not self.fsdp:
            return dict(zip(names, self.ema, strict=True))
        if self._gathered is None or self._gathered[0] != self.step:
            self._gathered = self.step, {name: tensor.to("cpu", copy=True) for name, tensor in self.state.whole("ema")}
        return self._gathered[1]

    def ema_model(self, weights: Mapping[str, Tensor] | None = None) -> DiER:
        """The model with its averaged weights (or those given) in evaluation mode."""
        model = DiER(self.model_config).to(self.device)
        model.load_state_dict(weights or self.ema_weights())
        return model.eval()

    def offer(self, score: float) -> None:
        """Keep the averaged weights of this step if `score`, higher = better, is the best so far; the first of equals stays."""
        if self.best is None or score > self.best.score:
            weights = {name: tensor.to("cpu", copy=True) for name, tensor in self.ema_weights().items()}
            self.best = Best(self.step, score, weights)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images (N, C, H, W) in [-1, 1], timesteps (N,) and noise (N, C, H, W) of a step: this process's share of the batch.

        All is a function of (seed, step, place in the batch), whoever computes it.
        """
        x0 = scaled(self.batches.take(step))
        draws = Draws(self.config.seed, step, self.processes.share(self.config.batch_size), self.device)
        if self.up_to is None:
            t = draws.integers("t", NUM_TIMESTEPS)
        else:
            t = torch.searchsorted(self.up_to, draws.uniform("t").double(), right=True).clamp(max=NUM_TIMESTEPS - 1)
        return x0, t, draws.normal("noise", *x0.shape[1:])

    def _train_step(self) -> None:
        x0, t, noise = self.batch(self.step)
        lr = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        share = self.processes.share(self.config.batch_size)
        given = vary(self.config, self.model_config.tokens, self.step, share, x0)
        losses = self._backward(t=t, noise=noise, **given)  # (N,)
        norms = torch.stack([_gradient_norm(part) for part in (self.model.encoder, self.model.denoiser)])  # (2,)
        if self.fsdp:
            norms = self.processes.total(norms.square()).sqrt()
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.grad_clip, norms.norm())
        self.optimizer.step()
        torch._foreach_lerp_(local(self.ema), local(self.parameters), 1 - ema_decay(self.config, self.step))

        self.window.add(t, losses, norms)

    def _after_step(self, *, log: bool, save: bool, end: bool) -> None:
        """What the first process does alone: callbacks, a point of the curve, a checkpoint.

        Nothing in here may ask the others, but for their shards (`TrainingState.whole`).
        """
        self.saver.check()
        with self.window.paused():
            for callback in self.callbacks:
                callback.on_step(self)
        if log:
            point, rate = self._point(), self.window.rate() * self.processes.count
            check_point(point, self.step - self.config.warmup_steps, self.curve, self.trivial)
            self.curve.append(point)
            self.rates.add(self.step, rate)
            for callback in self.callbacks:
                callback.on_point(self, point, rate)
            self.window.clear()
        if save:
            self._save()
        if end:
            self.saver.wait()

    def _backward(self, x0: Tensor, t: Tensor, noise: Tensor, **more: Tensor) -> Tensor:
        """Gradients of the global batch's mean loss, a micro-batch at a time; gives the losses of this process's images.

        `train.loss_weight` weighs the gradients only: the losses that are watched compare between weightings.
        """
        scale = self.processes.count / self.config.batch_size  # gradients are averaged over processes
        given = {"x0": x0, "t": t, "noise": noise} | more
        count = self.processes.pieces(self.config.batch_size, self.config.micro_batch)
        split = (torch.tensor_split(part, count) for part in given.values())
        pieces = [dict(zip(given, parts, strict=True)) for parts in zip(*split, strict=True)]
        added = v_gradients(self.config, self.processes, self.model, pieces)
        losses = []
        for number, (piece, v_gradient) in enumerate(zip(pieces, added, strict=True), 1):
            with self.processes.gradient_sync(self.network, last=number == len(pieces)):
                with autocast(self.config.precision, self.device):
                    loss: Tensor = self.network(**piece, v_gradient=v_gradient)
                counted = loss if self.weight is None else loss * self.weight[piece["t"]]
                torch.autograd.backward(counted.sum() * scale)
            losses.append(loss.detach())
        return torch.cat(losses)

    def _shares(self) -> Tensor | None:
        """How often each t is drawn, (NUM_TIMESTEPS,) on the device; None = all alike."""
        config = self.config
        if config.timesteps == "uniform" and config.fixed_timestep is None:
            return None
        mean = config.log_snr_mean if config.timesteps == "log_snr" else None
        alpha_bar = alpha_bars(self.model_config.schedule)
        return timestep_shares(alpha_bar, mean=mean, std=config.log_snr_std, fixed=config.fixed_timestep).to(self.device)

    def _trivial(self) -> float:
        if self.model_config.prediction == "eps":
            return TRIVIAL_LOSS
        variance = to_tensor(self._evenly(SAMPLE)).var(0, unbiased=False).mean().item()
        shares = None if self.shares is None else self.shares.cpu()
        return trivial_loss(self.model_config.prediction, alpha_bars(self.model_config.schedule), variance, shares)

    def _fit_frozen(self) -> None:
        """Only the first process reads images for it, and gives the others what it found."""
        frozen = list(self.model.frozen().values())
        if frozen and self.processes.first:
            self.model.cpu().fit_frozen(to_tensor(self._evenly(WHITENED)))
            self.model.to(self.device)
        with torch.no_grad():
            for parameter in frozen:
                parameter.copy_(self.processes.total(parameter if self.processes.first else torch.zeros_like(parameter)))

    def _evenly(self, count: int) -> Images:
        """About so many images, evenly spaced over all or over a few shards."""
        shards = self.shards or [slice(0, len(self.images))]
        some = [shards[i] for i in np.linspace(0, len(shards) - 1, min(len(shards), SAMPLE_SHARDS)).astype(int)]
        rows = [np.linspace(s.start, s.stop - 1, min(s.stop - s.start, count // len(some))).astype(np.int64) for s in some]
        return np.concatenate([self.images[chosen] for chosen in rows])

    def _point(self) -> Point:
        return self.window.point(self.step, learning_rate(self.config, self.step - 1))

    def _agree(self) -> tuple[int, bool]:
        """The signal that wants training to stop (0 = none), and whether a checkpoint is late by the clock.

        Several processes must agree: signals and clocks differ. As asking waits for the device, they do so once in AGREE_STEPS
        steps, or in AGREE_S seconds where that is sooner, by the time that the slowest process took for the last steps.
        """
        if self.processes.count > 1 and self.step < self._agree_at:
            return 0, False
        now, minutes = time.monotonic(), self.config.checkpoint_minutes
        late = minutes > 0 and now - self._saved_at >= max(60 * minutes, self.saver.seconds() / SAVING_SHARE)
        late = late and self.processes.first  # which alone knows how long it takes
        stop = max((callback.stop_requested() for callback in self.callbacks), default=0)
        done = self.step - self._agreed
        seconds = (now - self._agreed_at) / done  # a step
        stop_, late_, seconds = self.processes.largest([stop, late, seconds], self.device)
        self._agreed, self._agreed_at = self.step, time.monotonic()
        # at most twice as many as were measured: the first steps say little of the others, such as of what callbacks take
        self._agree_at = self.step + max(1, min(AGREE_STEPS, 2 * done, int(AGREE_S / max(seconds, 1e-6))))
        return int(stop_), bool(late_)

    def _save(self) -> None:
        """Save a running checkpoint. The one place that does; of several processes the first, which holds the folder."""
        if self.window.steps:
            check_finite(self._point())
        state: dict[str, Any] = {"steps": self.config.steps, "curve": list(self.curve), "window": self.window.state()}
        tensors = dict(self.saver.copy({part: self.state.whole(part) for part in PARTS}))
        if self.best is not None:
            tensors[BEST] = self.best.weights
            state[BEST] = {"step": self.best.step, "score": self.best.score}
        self.saver.save(RunningCheckpoint(self.step, tensors, state, self.run_configuration))

    def _resume(self) -> None:
        """Put everything as it was at the newest whole checkpoint; the logs are cut back to it. The first process reads first."""
        if not self.processes.first:
            self.processes.wait_for_first()
        running = newest(self.work, self.run_configuration, self.config.keep_checkpoints, self._say)
        if running is not None:
            self.state.load(running)
            self.step, self.curve = running.step, running.state["curve"]
            if BEST in running.state:
                self.best = Best(**running.state[BEST], weights=running.tensors[BEST])
            if self.processes.first:
                self.window.restore(running.state["window"])
            self._say(f"train: going on from the checkpoint of step {self.step}")
        if self.processes.first:
            self.rates.cut(self.step)
            self.processes.wait_for_first()
        if not self.processes.equal(self.step, self.device):
            raise CheckpointError(
                f"the processes see different checkpoints in {self.work}: give all nodes one shared folder as --work"
            )
        self._saved_at = self._agreed_at = time.monotonic()
        self._agreed, self._agree_at = self.step, self.step + 1

    def _say(self, message: str) -> None:
        for callback in self.callbacks:
            callback.on_message(message)


def _gradient_norm(module: torch.nn.Module) -> Tensor:
    """Of what this process holds of the gradients."""
    return torch.nn.utils.get_total_norm(local(p.grad for p in module.parameters() if p.grad is not None))
