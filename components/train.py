"""train: DiER on the training images, without labels, to a model artifact."""

import csv
import hashlib
import time
from pathlib import Path
from typing import Any

import torch

import model
from components import artifact
from components.errors import ArtifactError
from components.live import LiveLog
from components.memory import peak_memory
from components.progress import say, track
from components.settings import ModelSettings, TrainSettings
from data.errors import DataError
from data.format import Dataset, open_dataset
from model.checkpoint import save_model
from model.config import SIZES, ModelConfig
from model.device import pick_device
from model.dier import DiER
from model.features import shuffled_gap
from model.health import check_encoder, encoder_faded, encoder_is_dead
from model.trainer import Point, TrainConfig, Trainer, Watch

GAP_TIMESTEPS = [0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999]
GAP_IMAGES = 500
NOT_IN_KEY = {"device", "checkpoint_every", "probe_every", "min_gap"}
"""Settings that change neither weights nor curve, so that a run may go on with others."""


def run(model_settings: ModelSettings, train_settings: TrainSettings, dataset: Path, verdict: Path, work: Path, out: Path) -> None:
    """Train, or go on from the newest checkpoint under `work`, and write the model artifact to `out`.

    Raises DataError where the verdict is not a passing one of this dataset, TrainingError where training goes wrong.
    """
    data = artifact.read(dataset, "dataset")
    checked = artifact.read(verdict, "verdict")
    _check_verdict(checked, data)
    opened = open_dataset(dataset)
    images = opened.split("train").images
    if len(images) < train_settings.batch_size:
        raise DataError(
            f"{len(images)} training images in {dataset}, fewer than train.batch_size {train_settings.batch_size}: lower it"
        )

    height, width, channels = images.shape[1:]
    config = model_config(model_settings, height, width, channels, train_settings.seed)
    key = training_key(data.fingerprint, model_settings, train_settings)
    device = pick_device(train_settings.device)
    say(f"train: {len(images)} images of {height}x{width}x{channels} on {device}, {train_settings.steps} steps, key {key[:12]}")
    with LiveLog(key, work / key[:16]) as live:
        trainer = Trainer(config, _train_config(train_settings), images, work / key[:16], device)
        trainer.watch = _watch(trainer, live, train_settings.min_gap)
        if train_settings.probe_every:
            _look_every(train_settings, opened, trainer, live)
        trainer.run()

    ema = _averaged(trainer)
    gap = shuffled_gap(ema, images[:GAP_IMAGES], GAP_TIMESTEPS, seed=train_settings.seed, device=device)
    check_encoder(gap, train_settings.min_gap, trainer.curve)
    with artifact.create(out, "model", {"dataset": data.fingerprint, "verdict": checked.fingerprint}) as folder:
        save_model(folder, ema, trainer.ema_weights())
        _write_curve(folder / "curve.csv", trainer.curve)
        summary = {"steps": trainer.step, "parameters": _parameters(trainer), "gap": gap, "training_key": key}
        artifact.write_json(folder / "summary.json", summary)


def model_config(settings: ModelSettings, height: int, width: int, channels: int, seed: int) -> ModelConfig:
    """The networks for images of this shape; `seed` fixes the initial weights."""
    named = SIZES[settings.size]
    return ModelConfig(
        depth=settings.depth or named.depth,
        dim=settings.width or named.dim,
        heads=settings.heads or named.heads,
        height=height,
        width=width,
        channels=channels,
        patch_size=settings.patch_size,
        embed_dim=settings.embed_dim,
        pool=settings.pool,
        embed_norm=settings.embed_norm,
        encoder_time=settings.encoder_time,
        init_seed=seed,
    )


def training_key(dataset: str, model_settings: ModelSettings, train_settings: TrainSettings) -> str:
    """Fingerprint of all that the weights depend on: data, settings and the code of `model/`."""
    sources = sorted(Path(str(model.__file__)).parent.glob("*.py"))
    code = {source.name: hashlib.sha256(source.read_bytes()).hexdigest() for source in sources}
    settings = {"model": model_settings.model_dump(), "train": train_settings.model_dump(exclude=NOT_IN_KEY)}
    return artifact.digest({"dataset": dataset, "settings": settings, "code": code})


def _check_verdict(verdict: artifact.Artifact, data: artifact.Artifact) -> None:
    if verdict.made_from.get("dataset") != data.fingerprint:
        raise ArtifactError(f"the verdict {verdict.path} is of another dataset than {data.path}: run validate on this one")
    if not verdict.json("verdict.json")["passed"]:
        raise DataError(
            f"the verdict {verdict.path} says that the data failed: see its docs/index.html, mend the data, validate again"
        )


def _train_config(settings: TrainSettings) -> TrainConfig:
    values: dict[str, Any] = settings.model_dump(exclude={"device", "probe_every", "min_gap"})
    return TrainConfig(**values)


def _averaged(trainer: Trainer) -> DiER:
    """A copy with the averaged weights. Building it draws from the global generator, which is put back as it was."""
    with torch.random.fork_rng(devices=[]):
        return trainer.ema_model()


def _watch(trainer: Trainer, live: LiveLog, min_gap: float) -> Watch:
    """Progress for a person, points for MLflow, and the wall-clock rates beside the checkpoints. Ends a training in vain."""
    steps = track(range(trainer.config.steps), trainer.config.steps, "train", "steps")
    seen = looked = 0

    def step(done: int) -> None:
        nonlocal seen
        while seen < done:  # a resumed run starts with the steps it had
            next(steps, None)
            seen += 1
        if done == trainer.config.steps:
            next(steps, None)

    def point(row: Point, rate: float) -> None:
        nonlocal looked
        live.log(int(row["step"]), {**row, "images_per_second": rate, **peak_memory(trainer.device)})
        trainer.work.mkdir(parents=True, exist_ok=True)
        with (trainer.work / "rates.csv").open("a", encoding="utf-8") as file:
            file.write(f"{int(row['step'])},{rate:.1f},{time.time():.0f}\n")
        if min_gap and trainer.step >= 2 * looked and encoder_faded(trainer.curve):
            looked = trainer.step  # a healthy encoder's gradient falls as well, so this is asked seldom, and of few images
            ema, few = _averaged(trainer), trainer.images[: GAP_IMAGES // 2]
            gap = shuffled_gap(ema, few, GAP_TIMESTEPS[1::2], seed=trainer.config.seed, device=trainer.device)
            if encoder_is_dead(row["ratio"] for row in gap):
                check_encoder(gap, min_gap, trainer.curve)

    return Watch(point=point, step=step, say=say)


def _look_every(settings: TrainSettings, dataset: Dataset, trainer: Trainer, live: LiveLog) -> None:
    """Have the embeddings looked at every `train.probe_every` steps."""
    from components.watching import Watcher  # brings scikit-learn, which a training without it need not wait for

    watcher = Watcher(dataset, settings.seed, trainer.device, trainer.work / "watch.csv")
    told = trainer.watch.step

    def step(done: int) -> None:
        told(done)
        if done % settings.probe_every == 0:
            watcher.look(done, lambda: _averaged(trainer), lambda at, found: live.log(at, found, prefix="watch/"))

    trainer.watch.step = step


def _write_curve(file: Path, curve: list[Point]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(curve[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)


def _parameters(trainer: Trainer) -> dict[str, int]:
    parts: dict[str, torch.nn.Module] = {"encoder": trainer.model.encoder, "denoiser": trainer.model.denoiser}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
