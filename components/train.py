"""train: DiER on the training images, without labels, to a model artifact."""

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import model
from components.common import artifact
from components.common.lineage import check_one_run
from components.common.progress import say
from components.common.settings import ModelSettings, TrainSettings
from components.tracking.live import LiveLog
from components.training.callbacks import DeadEncoder, LiveMetrics, Progress, StopOnSignal, gap_in_training
from components.training.stop_signals import stop_signals
from data.errors import DataError
from data.format import Dataset, open_dataset
from model.config import SIZES, ModelConfig
from model.device import keep_freed_memory, pick_device
from model.errors import PermanentTrainingError
from model.memory import in_words, parameters
from model.objective import choose_prediction, too_narrow
from model.rank import IMAGES as RANK_IMAGES
from model.rank import in_words as rank_in_words
from model.rank import ranks
from model.rng import sample_rows
from model.training import precision
from model.training.callback import Callback
from model.training.compiling import choose_compile, training_work
from model.training.curve import Point
from model.training.deterministic import deterministic
from model.training.distributed import first_on_node, joined, local_device
from model.training.divergence import unused_encoder
from model.training.fsdp import choose_fsdp, device_memory
from model.training.run_configuration import code_digest, code_digests
from model.training.trainer import Trainer
from model.weights import save_model

NOT_IN_KEY = {
    "device",
    "compile",
    "checkpoint_activations",
    "fsdp",
    "workers",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    "probe_every",
    "deterministic",
    "min_gap",
}
"""Settings that change neither weights nor curve, so that a run may go on with others. (On CUDA `deterministic` is in the key.)"""
CHOOSING = ("training/online_probe.py", "probing/classifier.py", "probing/grouped.py", "probing/metrics.py")
"""Code that the exported weights depend on where the probe chooses them."""


def run(model_settings: ModelSettings, train_settings: TrainSettings, dataset: Path, verdict: Path, work: Path, out: Path) -> None:
    """Train, or go on from the newest checkpoint under `work`, and write the model artifact to `out`.

    Raises DataError where the verdict is not a passing one of this dataset, TrainingError where training goes wrong, Stopped when
    SIGINT or SIGTERM came: a checkpoint is saved first. A model whose encoder turns out to be dead is written, with a warning.
    """
    data = artifact.read(dataset, "dataset", check=first_on_node())
    checked = artifact.read(verdict, "verdict")
    _check_verdict(checked, data)
    opened = open_dataset(dataset)
    split = opened.split("train")
    images, shards = split.images, split.shards
    if len(images) < train_settings.batch_size:
        raise DataError(
            f"{len(images)} training images in {dataset}, fewer than train.batch_size {train_settings.batch_size}: lower it"
        )

    height, width, channels = images.shape[1:]
    config = model_config(model_settings, height, width, channels, train_settings.seed)
    keep_freed_memory()
    device = local_device(pick_device(train_settings.device))
    compiled, why = choose_compile(
        train_settings.compile, device, training_work(config, train_settings.steps * train_settings.batch_size)
    )
    configuration = run_configuration(
        data.fingerprint, model_settings, train_settings, on_cuda=device.type == "cuda", compiled=compiled
    )
    key = artifact.digest(configuration)
    settings = {"model": model_settings.record(), "train": train_settings.record()}
    folder = work / key[:16]
    with deterministic(train_settings.deterministic), joined(device) as processes:
        memory = device_memory(device)
        if memory is not None:  # the smallest GPU's: all must decide alike
            memory = -int(processes.largest([-memory], device)[0])
        fsdp, held = choose_fsdp(train_settings.fsdp, processes.count, parameters(config), memory)
        with stop_signals() as came:
            callbacks: list[Callback] = [StopOnSignal(came)]
            trainer = Trainer(
                config, train_settings, images, folder, device, callbacks, configuration, processes, compiled, fsdp, shards
            )
            if not processes.first:  # of several processes one talks and writes
                trainer.run()
                return
            many = f", {processes.count} processes" if processes.count > 1 else ""
            shape = f"{len(images)} images of {height}x{width}x{channels}"
            say(f"train: {shape} on {device}{many}, {train_settings.steps} steps, key {key[:12]}")
            say(f"train: {why}")
            at_once = min(train_settings.micro_batch or len(images), -(-train_settings.batch_size // processes.count))
            held_by = processes.count if fsdp else 1
            recomputed = train_settings.checkpoint_activations
            takes = in_words(config, train_settings.precision, at_once, checkpointing=recomputed, shards=held_by)
            say(f"train: {takes}")
            if narrow := too_narrow(config):
                say(f"train: WARNING: {narrow}")
            if processes.count > 1:
                say(f"train: {held}")
            if note := precision.note(train_settings.precision, device):
                say(f"train: {note}")
            with LiveLog(key, folder, settings=settings) as live:
                callbacks += _callbacks(train_settings, opened, folder, live)
                trainer.run()
        weights, kept = _exported(trainer, train_settings.keep)
        gap = gap_in_training(trainer, weights)
        rank = _rank(trainer, weights)
    unused = unused_encoder(gap, train_settings.min_gap, trainer.curve)
    say(f"train: {rank_in_words(rank, config.embed_dim)}")
    with artifact.create(out, "model", {"dataset": data.fingerprint, "verdict": checked.fingerprint}) as beside:
        save_model(beside, trainer.model, weights)
        _write_curve(beside / "curve.csv", trainer.curve)
        artifact.write_json(beside / "settings.json", settings)
        summary: dict[str, Any] = {
            "steps": trainer.step,
            "parameters": _parameters(trainer),
            "gap": gap,
            "rank": rank,
            "encoder_used": unused is None,
            "warnings": [unused] if unused else [],
            "method": train_settings.method,
            "training_key": key,
        } | kept
        artifact.write_json(beside / "summary.json", summary)
    if unused:
        say(f"train: WARNING: {unused}. The model is written all the same, with encoder_used: false in its summary.json")


def _callbacks(settings: TrainSettings, dataset: Dataset, folder: Path, live: LiveLog) -> list[Callback]:
    found: list[Callback] = [Progress(settings.steps), LiveMetrics(live)]
    if settings.min_gap:
        found.append(DeadEncoder(settings.min_gap))
    if settings.probe_every:
        # brings scikit-learn, which a training without it need not wait for
        from components.training.online_probe import OnlineProbe

        found.append(
            OnlineProbe(
                dataset,
                settings.probe_every,
                seed=settings.seed,
                file=folder / "watch.csv",
                log=lambda step, found: live.log(step, found, prefix="watch/"),
                keep_best=settings.keep == "best_probe",
            )
        )
    return found


def model_config(settings: ModelSettings, height: int, width: int, channels: int, seed: int) -> ModelConfig:
    """The networks for images of this shape; `seed` fixes the initial weights."""
    named = SIZES[settings.size]
    dim = settings.width or named.dim
    denoiser_dim = settings.denoiser_width or dim
    return ModelConfig(
        depth=settings.depth or named.depth,
        dim=dim,
        heads=settings.heads or named.heads,
        image_height=height,
        image_width=width,
        channels=channels,
        patch_size=settings.patch_size,
        embed_dim=settings.embed_dim,
        pool=settings.pool,
        embed_norm=settings.embed_norm,
        encoder_time=settings.encoder_time,
        init_seed=seed,
        schedule=settings.schedule,
        prediction=choose_prediction(settings.prediction, channels * settings.patch_size**2, denoiser_dim),
        modulation=settings.modulation,
        modulation_rank=settings.modulation_rank,
        encoder=settings.encoder,
        stem=settings.stem,
        condition=settings.condition,
        condition_dim=settings.condition_dim,
        denoiser_depth=settings.denoiser_depth,
        denoiser_dim=settings.denoiser_width,
    ).check_new()


def run_configuration(
    dataset: str, model_settings: ModelSettings, train_settings: TrainSettings, *, on_cuda: bool = False, compiled: bool = False
) -> dict[str, Any]:
    """All that the weights depend on, by name: the data's fingerprint, settings, and digests of what the code of `model/` does.

    The training key is the digest of these, and checkpoints carry them.
    """
    found = {f"model.{name}": value for name, value in model_settings.model_dump().items()}
    found |= {f"train.{name}": value for name, value in train_settings.model_dump(exclude=NOT_IN_KEY).items()}
    if on_cuda:
        found["train.device"] = "cuda"  # its generators give other numbers: a run that began on a CPU does not go on there
    if on_cuda and train_settings.deterministic:
        # Without it weights on CUDA differ from run to run: a finished training must not stand in for a deterministic one. On the
        # CPU both are one and the same.
        found["train.deterministic"] = True
    if compiled:
        found["train.compile"] = "on"  # it rounds differently: what was decided counts, not what was asked for
    if train_settings.keep == "best_probe":
        found["train.probe_every"] = train_settings.probe_every
        for name in CHOOSING:
            found[f"components/{name}"] = code_digest(Path(__file__).parent / name)
    return found | code_digests(Path(str(model.__file__)).parent) | {"dataset": dataset}


def _exported(trainer: Trainer, keep: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights that become the artifact, and what its summary says of their choice."""
    if keep == "last":
        return trainer.ema_weights(), {}
    if trainer.best is None:
        raise PermanentTrainingError(  # a further try starts at the last step, where nothing is evaluated any more
            "train.keep best_probe: no evaluation of the embeddings succeeded, so there is no best step (the lines above say why); "
            "mend that and train again, or set train.keep to last"
        )
    best = trainer.best
    say(f"train: keeping step {best.step}, whose probe on val was the best ({100 * best.score:.1f} %)")
    return dict(best.weights), {"kept": {"step": best.step, "probe": best.score}}


def _rank(trainer: Trainer, weights: dict[str, Tensor]) -> dict[str, Any]:
    """How much of v_t the model with these weights uses, on training images."""
    chosen = sample_rows(trainer.config.seed, len(trainer.images), trainer.shards, RANK_IMAGES)
    return ranks(trainer.ema_model(weights), trainer.images[chosen], device=trainer.device)


def _check_verdict(verdict: artifact.Artifact, data: artifact.Artifact) -> None:
    check_one_run(data, verdict)
    if not verdict.json("verdict.json")["passed"]:
        raise DataError(
            f"the verdict {verdict.path} says that the data failed: see its docs/index.html, mend the data, validate again"
        )


def _write_curve(file: Path, curve: list[Point]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(curve[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)


def _parameters(trainer: Trainer) -> dict[str, int]:
    parts: dict[str, torch.nn.Module] = {"encoder": trainer.model.encoder, "denoiser": trainer.model.denoiser}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
