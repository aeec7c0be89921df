"""embed: v_t of every image for each timestep asked for, in the dataset's order and in bounded memory."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from components.common import artifact
from components.common.errors import ArtifactError
from components.common.progress import track
from components.common.settings import EmbedSettings
from components.embedding import store
from data.format import Split, open_dataset
from model.device import keep_freed_memory, pick_device
from model.dier import DiER
from model.features import embed
from model.weights import load_model


def run(embed_settings: EmbedSettings, dataset: Path, model: Path, out: Path) -> None:
    """Write the embeddings artifact. Raises ArtifactError where model and dataset do not belong together."""
    data = artifact.read(dataset, "dataset")
    trained = artifact.read(model, "model")
    opened = open_dataset(dataset)
    network = load_model(model)
    config = network.config
    if opened.info.image_shape != [config.image_height, config.image_width, config.channels]:
        shape = f"{config.image_height}x{config.image_width}x{config.channels}"
        raise ArtifactError(
            f"the model {model} takes images of {shape}, the dataset {dataset} has "
            f"{'x'.join(map(str, opened.info.image_shape))}: embed the dataset it was trained on, or prepare one of its shape"
        )
    keep_freed_memory()
    device = pick_device(embed_settings.device)
    network.to(device)
    splits = [opened.split(name) for name in embed_settings.splits]
    work = list(product(splits, embed_settings.timesteps))
    facts = {
        "timesteps": embed_settings.timesteps,
        "splits": embed_settings.splits,
        "dtype": embed_settings.dtype,
        "embed_dim": config.embed_dim,
        "counts": {split.name: len(split) for split in splits},
    }
    with artifact.create(out, "embeddings", {"dataset": data.fingerprint, "model": trained.fingerprint}) as folder:
        for split, t in track(work, len(work), "embed", "files"):
            pieces = _pieces(network, split, t, embed_settings.batch_size, device)
            store.write(store.file_of(folder, split.name, t), split.labels, pieces, embed_settings.dtype)
        artifact.write_json(folder / "embeddings.json", facts)


def _pieces(network: DiER, split: Split, t: int, size: int, device: torch.device) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(split), size):
        yield embed(network, split.images[start : start + size], t, batch_size=size, device=device)
