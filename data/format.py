"""The on-disk format of an image set: `dataset.json`, and a split's images as one memory-mapped array, or in shards."""

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.shards import ShardedImages, read_manifests

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
MULTI_LABEL = "multi-label, binary-class"
TASKS = ("multi-class", "binary-class", MULTI_LABEL, "ordinal-regression")
"""MedMNIST's words for what a label is."""


def labelled(task: str, class_names: Sequence[str]) -> bool:
    """Whether labels of this task and these classes tell images apart: a single class does not, a single yes/no label does."""
    return len(class_names) > 1 or task == MULTI_LABEL


@dataclass(frozen=True)
class DatasetInfo:
    """What `dataset.json` holds."""

    name: str
    source: str
    licence: str
    task: str
    class_names: list[str]
    image_shape: list[int]
    counts: dict[str, int]
    notes: list[str]
    shard_images: int | None = None
    """Images a shard; null where a split's images are one array."""
    store: str | None = None
    """Where the shards lie; null = in the artifact."""
    copies: int = 1
    """Copies of each original, which follow each other: row r of a split is one of original r // copies."""
    occupancy: float | None = None
    """Of images on a blank canvas the mean share of it that is content (not 0), in train, 0 .. 1; null without a canvas."""

    @property
    def multi_label(self) -> bool:
        """Whether an image carries several yes/no labels."""
        return self.task == MULTI_LABEL

    @property
    def labelled(self) -> bool:
        """Whether labels tell images apart: a single class does not."""
        return labelled(self.task, self.class_names)


@dataclass(frozen=True)
class Split:
    """One split: images (N, H, W, C) uint8, memory-mapped or in shards; labels (N,) int64, or (N, L) uint8 for multi-label."""

    name: SplitName
    images: npt.NDArray[np.uint8]
    """An array, or `ShardedImages`, which is read by rows alone: an int, a slice, or ascending rows."""
    labels: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shards(self) -> tuple[slice, ...]:
        """Successive ranges of images that lie in one file: whoever works in blocks inside them reads each file once."""
        return getattr(self.images, "shards", (slice(0, len(self)),))

    def release(self) -> None:
        """Give the pages of mapped images back to the system, which reads them again where they are asked for.

        Until then they count as this process's memory: whoever goes through a large split says so from time to time.
        """
        mapped = getattr(self.images, "_mmap", None)  # of a numpy.memmap
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Dataset:
    """A dataset folder that was opened; its files are mapped, not read."""

    path: Path
    info: DatasetInfo

    def split(self, name: str) -> Split:
        """Open one split; of shards the manifests alone are read. Raises DataError where it does not fit `dataset.json`."""
        if name not in SPLITS:
            raise DataError(f"no split {name!r} in {self.path}: use one of {', '.join(SPLITS)}")
        images = _load(self.path / name / "images.npy") if self.info.shard_images is None else self._sharded(name)
        labels = _load(self.path / name / "labels.npy")
        expected = (self.info.counts[name], *self.info.image_shape)
        if images.dtype != np.uint8 or images.shape != expected or len(labels) != len(images):
            raise DataError(
                f"{self.path / name}: images are {images.dtype} {images.shape} with {len(labels)} labels where "
                f"{self.path}/dataset.json says uint8 {expected}; prepare the data again"
            )
        return Split(name, images, labels)

    def _sharded(self, name: str) -> npt.NDArray[np.uint8]:
        folder, store = self.path / name, self.info.store
        images = ShardedImages(store or str(folder), read_manifests(folder, store is not None), self.info.image_shape)
        return cast(npt.NDArray[np.uint8], images)  # in all that a split's images are used for


def image_hash(image: npt.NDArray[np.uint8]) -> str:
    """Hex BLAKE2b-128 of an image's bytes: copies have the same."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()


def open_dataset(path: Path) -> Dataset:
    """Open the dataset at `path`. Raises DataError when `dataset.json` is missing or does not parse."""
    try:
        return Dataset(path, DatasetInfo(**json.loads((path / "dataset.json").read_text("utf-8"))))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}/dataset.json: {error}; prepare the data again") from error


def write_info(path: Path, info: DatasetInfo) -> None:
    """Write `dataset.json` into the folder `path`."""
    unused = {field.name: field.default for field in fields(info) if field.default is not MISSING}
    content = {name: value for name, value in asdict(info).items() if name not in unused or value != unused[name]}
    (path / "dataset.json").write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _load(file: Path) -> npt.NDArray[Any]:
    try:
        return cast(npt.NDArray[Any], np.load(file, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}; prepare the data again") from error
