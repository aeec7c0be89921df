"""DiER, through the project's own Trainer, with any of its settings: the method as defined, and each named variant of it."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.contestant import Budget, Features, Labels, Look, Setting, Trained
from experiments.features import Projected, remembered, side_by_side
from experiments.networks import MODEL_FIELDS, count, model_config, tokens_at
from experiments.training import step_flops
from model.dier import DiER
from model.features import embed
from model.images import Images
from model.training.callback import Callback
from model.training.options import TrainConfig
from model.training.trainer import Trainer

TIMESTEPS = (0, *range(100, 1000, 100), 999)
"""Where the paper reads the embeddings."""
JOINT = (100, 300, 600)
"""Timesteps whose embeddings are read side by side too."""
OWN: Mapping[str, Any] = {"read_at": TIMESTEPS, "joint": JOINT, "tokens_at": None, "warmup": 0.1}
"""What else a setting may say: t that are read, that are read side by side, and at which the tokens before the head are read, as
other encoders' are (None = 100 if that is read, else the first that is); the share of the steps that warm up."""


def dier(
    images: Images, labels: Labels | None, *, budget: Budget, seed: int, setting: Setting, look: Look | None = None
) -> Trained:
    """Train DiER; a setting has the names of ModelConfig's fields, of TrainConfig's, and of OWN.

    Steps, batch size and seed are the budget's. The features are v_t at each t, and of several side by side.
    """
    own = {**OWN, **{name: setting[name] for name in OWN if name in setting}}
    with tempfile.TemporaryDirectory() as work:
        flops = _flops(trainer_of(images, budget, seed, setting, Path(work) / "flops"))
        looks = _Looks(budget.looks, look, images, own)
        trainer = trainer_of(images, budget, seed, setting, Path(work) / "run", looks)
        began = time.process_time()
        trainer.run()
        seconds = time.process_time() - began - looks.seconds
    final = trainer.ema_model()
    return Trained(features(final, images, own), budget.steps, flops * budget.steps, seconds, count(final.encoder))


def trainer_of(images: Images, budget: Budget, seed: int, setting: Setting, work: Path, *callbacks: Callback) -> Trainer:
    """The project's Trainer as a setting says, which works in a folder that is not there yet."""
    work.mkdir(parents=True)
    config = _train_config(budget, seed, setting, setting.get("warmup", OWN["warmup"]))
    return Trainer(model_config(images, setting, seed), config, images, work, torch.device("cpu"), callbacks=list(callbacks))


def features(model: DiER, images: Images, own: Setting) -> dict[str, Features]:
    """v_t by its t, and several side by side: as they are, and by PCA in as many numbers as one has, fitted on the training set."""

    def at(t: int) -> Features:
        return lambda images: embed(model, images, t)

    read_at = own["read_at"]
    each = {t: remembered(at(t)) for t in {*read_at, *own["joint"]}}
    found = {f"t={t}": each[t] for t in read_at}
    for t in own["tokens_at"] or ([100] if 100 in read_at else read_at[:1]):
        found[f"t={t}, tokens"] = tokens_at(model.encoder, t)
    if own["joint"]:
        name = "t=" + "+".join(map(str, own["joint"]))
        found[name] = joint = side_by_side([each[t] for t in own["joint"]])
        found[f"{name}, PCA"] = Projected(joint, images, model.config.embed_dim)
    return found


def _train_config(budget: Budget, seed: int, setting: Setting, warmup: float) -> TrainConfig:
    """Raises ValueError for what is neither of the network, nor of the training, nor of OWN."""
    fixed = {"steps", "batch_size", "seed"}
    known = set(TrainConfig.model_fields) - fixed
    if unknown := sorted(set(setting) - known - MODEL_FIELDS - set(OWN) - {"family"}):
        raise ValueError(f"dier knows no setting {unknown[0]!r}: use {', '.join(sorted(known | MODEL_FIELDS | set(OWN)))}")
    given = {"lr": 1e-3, "warmup_steps": round(warmup * budget.steps)} | {k: v for k, v in setting.items() if k in known}
    # checkpoints are no part of the contest: one at the end
    given |= {"checkpoint_every": budget.steps, "checkpoint_minutes": 0, "keep_checkpoints": 1}
    return TrainConfig(steps=budget.steps, batch_size=budget.batch_size, seed=seed, **given)


def _flops(trainer: Trainer) -> float:
    """Of one step, by a training that goes no further."""
    trainer.model.train()
    return step_flops(trainer._train_step)


class _Looks(Callback):
    """Shows the averaged weights at some steps, and keeps the processors' seconds that this takes."""

    def __init__(self, steps: tuple[int, ...], look: Look | None, images: Images, own: Setting) -> None:
        self._steps, self._look, self._images, self._own = steps, look, images, own
        self.seconds = 0.0

    def on_step(self, trainer: Trainer) -> None:
        """After every step."""
        if self._look is not None and trainer.step in self._steps:
            began = time.process_time()
            self._look(trainer.step, features(trainer.ema_model(), self._images, self._own))
            self.seconds += time.process_time() - began
