"""Some test images with the embeddings that were exported of them: what a registered version is held to, on any machine."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from components.common.artifact import Artifact
from components.common.errors import ArtifactError
from components.embedding import store
from data.format import Dataset, image_hash
from model.atomic import canonical_json

SAMPLE = "sample.safetensors"
IMAGES, BYTES = 32, 8 * 2**20
"""Images in a sample, and bytes that they may take: of larger images there are fewer, but one at least."""


@dataclass(frozen=True)
class Sample:
    """Test images, evenly spaced over the split."""

    index: npt.NDArray[np.int64]
    """(n,) rows of the test split, ascending."""
    embedding: npt.NDArray[np.float32]
    """(n, D) as they were exported, of several timesteps side by side."""
    images: npt.NDArray[np.uint8] | None
    """(n, H, W, C); None where they may not leave the dataset."""
    facts: dict[str, Any]
    """`hashes` of the images (data.format.image_hash), `timesteps`, `of` how many test images, and how they were exported:
    `dtype`, `precision`, `device`."""

    def without_images(self) -> "Sample":
        """The same, to be filled from the dataset."""
        return replace(self, images=None)

    def filled(self, dataset: Dataset) -> "Sample":
        """The same, with its images out of the dataset that it was taken from. Raises DataError where that lacks them."""
        return replace(self, images=np.asarray(dataset.split("test").images[self.index]))

    def changed_images(self) -> list[int]:
        """Rows of the test split whose image is not the one that was sampled."""
        assert self.images is not None
        return [
            int(row)
            for row, image, told in zip(self.index, self.images, self.facts["hashes"], strict=True)
            if image_hash(image) != told
        ]


def take(dataset: Dataset, embedded: Artifact, timesteps: list[int]) -> Sample | None:
    """A sample of the test split; None where the split was not embedded at these timesteps, or has no image."""
    number = dataset.info.counts.get("test", 0)
    if not number or not all(store.files_of(embedded.path, "test", t) for t in timesteps):
        return None
    most = max(1, min(IMAGES, BYTES // int(np.prod(dataset.info.image_shape))))
    rows = np.unique(np.linspace(0, number - 1, min(most, number)).round().astype(np.int64))
    images = np.ascontiguousarray(dataset.split("test").images[rows])
    told = embedded.json("embeddings.json")
    facts = {
        "hashes": [image_hash(image) for image in images],
        "timesteps": timesteps,
        "of": number,
        "dtype": told["dtype"],
        "precision": told.get("precision", "float32"),
        "device": told.get("device", "cpu"),
    }
    return Sample(rows, np.concatenate([store.read(embedded, "test", t, rows) for t in timesteps], axis=1), images, facts)


def write(file: Path, sample: Sample) -> None:
    """Write a sample: the same bytes for the same one."""
    tensors: dict[str, npt.NDArray[Any]] = {"index": sample.index, "embedding": sample.embedding}
    if sample.images is not None:
        tensors["images"] = np.ascontiguousarray(sample.images)
    save_file(tensors, file, metadata={"sample": canonical_json(sample.facts)})


def read(file: Path) -> Sample:
    """Read a sample. Raises ArtifactError where the file is none."""
    try:
        with safe_open(file, framework="numpy") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dict
            facts = json.loads(opened.metadata()["sample"])
        return Sample(found["index"], found["embedding"], found.get("images"), facts)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is no sample of test images ({error}): make the report again") from error
