"""embed: v_t of every image for each timestep asked for, in the dataset's order and in bounded memory.

A shard of the images at a time, and of several tasks each its share of the shards: no batch crosses a shard, so however the work is
divided, over timesteps and shards (components/embedding/parts.py), the bytes are the same. One task uses one device: several GPUs
are several tasks, on Kubeflow `embed.fan_out`.

With `embed.timesteps: auto`, or more images than `embed.auto_above`, the timesteps are chosen first (components/selecting/), on
images of the whole dataset whatever the part: all parts choose alike, and a join holds them to it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.common import artifact
from components.common.errors import ArtifactError
from components.common.progress import say, track
from components.common.settings import EmbedSettings
from components.embedding import store
from components.selecting.choose import choose
from data.format import Dataset, Split, open_dataset
from model.config import ModelConfig
from model.device import keep_freed_memory, pick_device
from model.dier import DiER
from model.features import embed_batches
from model.training.compiling import choose_compile, encoding_work
from model.weights import load_model

MOST_FILES = 64
"""Timesteps whose files are written at once: each is an open file, of which a process may have 1024."""


@dataclass(frozen=True)
class Shard:
    """Successive images of a split that lie in one file; `number` is None where the split has no other."""

    split: Split
    rows: slice
    number: int | None


def run(embed_settings: EmbedSettings, dataset: Path, model: Path, out: Path) -> None:
    """Write the embeddings artifact. Raises ArtifactError where model and dataset do not belong together."""
    data = artifact.read(dataset, "dataset")
    trained = artifact.read(model, "model")
    opened = open_dataset(dataset)
    network = load_model(model)
    _check_shape(network.config, opened, model)
    keep_freed_memory()
    device = pick_device(embed_settings.device)
    selection, images = None, sum(opened.info.counts[name] for name in embed_settings.splits)
    if embed_settings.chooses(images):
        if embed_settings.timesteps:
            say(f"embed: {images:,} images are more than embed.auto_above: t is chosen, not as listed (0 = never)")
        selection = _choose(embed_settings, network.to(device), opened, trained)
        embed_settings = embed_settings.model_copy(update={"timesteps": selection["timesteps"]})
    work = encoding_work(network.config, images)  # at one timestep over all images: every part is compiled, or none is
    compiled, why = choose_compile(embed_settings.compile, device, work, "embed")
    if compiled:
        say(f"embed: {why}")
        network.compile_blocks()
    network.to(device)
    shards = shards_of(embed_settings, opened)
    kind = "embeddings" if embed_settings.part is None else store.PART
    with artifact.create(out, kind, {"dataset": data.fingerprint, "model": trained.fingerprint}) as folder:
        written = (done for shard in shards for done in _write(folder, embed_settings, shard, network, device, one_shape=compiled))
        for _ in track(written, sum(_batches(embed_settings, shard) for shard in shards), "embed", "batches"):
            pass
        artifact.write_json(folder / "embeddings.json", _facts(embed_settings, opened, network.config, device, compiled))
        if selection is not None:
            artifact.write_json(folder / store.SELECTION, selection)


def _choose(settings: EmbedSettings, network: DiER, dataset: Dataset, trained: artifact.Artifact) -> dict[str, Any]:
    """What selection.json holds."""
    known = trained.json("settings.json")["train"] if (trained.path / "settings.json").is_file() else {}
    dropout = known.get("condition_dropout", 0.0) > 0
    found = choose(settings.select, settings.k, network, dataset, condition_dropout=dropout)
    share = found["cost"]["of_a_sweep"]
    say(f"embed: t = {', '.join(map(str, found['timesteps']))} by {found['select']}; it took {share:.1%} of a sweep's passes")
    return found


def shards_of(settings: EmbedSettings, dataset: Dataset) -> list[Shard]:
    """The shards of the splits that are embedded here: all, or every n-th from the k-th on."""
    shards = []
    for split in map(dataset.split, settings.splits):
        alone = len(split.shards) == 1
        shards += [Shard(split, rows, None if alone else number) for number, rows in enumerate(split.shards)]
    if settings.part is None:
        return shards
    first, step = settings.part
    if first >= len(shards):
        say(f"embed: part {first} of {step} has nothing to do: the splits {', '.join(settings.splits)} are {len(shards)} files")
    return shards[first::step]


def _write(
    folder: Path, settings: EmbedSettings, shard: Shard, network: DiER, device: torch.device, one_shape: bool
) -> Iterator[None]:
    """Write the files of a shard, one a timestep; yield after each batch. The images are read once for all timesteps."""
    images, labels = shard.split.images[shard.rows], shard.split.labels[shard.rows]
    for timesteps in _at_once(settings.timesteps):
        files = [store.file_of(folder, shard.split.name, t, shard.number) for t in timesteps]
        batches = embed_batches(
            network,
            images,
            timesteps,
            batch_size=settings.batch_size,
            device=device,
            precision=settings.precision,
            one_shape=one_shape,
        )
        with ExitStack() as stack:
            writers = [stack.enter_context(closing(store.Writer(file, settings.dtype, shard.rows.start))) for file in files]
            done = 0
            for v in batches:  # (T, n, embed_dim)
                for writer, piece in zip(writers, v, strict=True):
                    writer.add(labels[done : done + len(piece)], piece)
                done += v.shape[1]
                yield


def _at_once(timesteps: list[int]) -> list[list[int]]:
    return [timesteps[start : start + MOST_FILES] for start in range(0, len(timesteps), MOST_FILES)]


def _batches(settings: EmbedSettings, shard: Shard) -> int:
    images: int = shard.rows.stop - shard.rows.start
    return -(-images // settings.batch_size) * len(_at_once(settings.timesteps))


def _facts(settings: EmbedSettings, dataset: Dataset, config: ModelConfig, device: torch.device, compiled: bool) -> dict[str, Any]:
    """What embeddings.json holds. What changes the last bits is said where it is not the default: a join holds parts to it."""
    facts: dict[str, Any] = {
        "timesteps": settings.timesteps,
        "splits": settings.splits,
        "dtype": settings.dtype,
        "embed_dim": config.embed_dim,
        "counts": {name: dataset.info.counts[name] for name in settings.splits},
    }
    told = {"device": device.type, "precision": settings.precision, "compiled": compiled, "part": settings.part}
    told |= {"k": settings.k if settings.k > 1 else None}
    return facts | {name: value for name, value in told.items() if value not in ("cpu", "float32", False, None)}


def _check_shape(config: ModelConfig, dataset: Dataset, model: Path) -> None:
    if dataset.info.image_shape != [config.image_height, config.image_width, config.channels]:
        shape = f"{config.image_height}x{config.image_width}x{config.channels}"
        raise ArtifactError(
            f"the model {model} takes images of {shape}, the dataset {dataset.path} has "
            f"{'x'.join(map(str, dataset.info.image_shape))}: embed the dataset it was trained on, or prepare one of its shape"
        )
