"""The contest's image sets: any npz in MedMNIST's layout, the bundled digits, and the digits scattered over a larger canvas.

The digits come through prepare itself, so that splits, near-duplicates and scattering are the pipeline's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components import prepare
from components.common.settings import DataSettings
from data.format import SPLITS, SplitName, open_dataset
from experiments.contestant import Labels
from experiments.views import FAMILIES
from model.images import Images

GARMENTS = ("fashionmnist",)
GLYPHS = ("mnist", "digits")
"""Names that begin so are of these families of views; all others are natural."""


@dataclass(frozen=True)
class ImageSet:
    """Images (N, H, W, C) uint8 and labels (N,) of each split; `family` says which views leave its images what they are."""

    name: str
    family: str
    images: Mapping[SplitName, Images]
    labels: Mapping[SplitName, Labels]
    copies: int = 1
    """Successive images of a split that show one original: whoever resamples images takes originals."""

    @property
    def classes(self) -> int:
        """How many."""
        return int(max(labels.max() for labels in self.labels.values())) + 1


def load(name: str, folder: Path) -> ImageSet:
    """The set `name`: `digits`, `digits16` (scattered over 16 x 16 pixels; any side), or what `folder`/`name`.npz holds.

    Prepared digits are kept below `folder`. Raises ValueError where there is no such file, or its arrays are no such set.
    """
    if name == "digits" or (name.startswith("digits") and name.removeprefix("digits").isdigit()):
        return _digits(name, folder)
    file = folder / f"{name}.npz"
    if not file.is_file():
        raise ValueError(f"no set {name!r}: {file} is missing; put it there in MedMNIST's layout, or use digits or digits16")
    with np.load(file, allow_pickle=False) as found:
        if missing := [f"{split}_{what}" for split in SPLITS for what in ("images", "labels") if f"{split}_{what}" not in found]:
            raise ValueError(f"{file} has no {missing[0]}: MedMNIST's layout has images and labels of train, val and test")
        images = {split: _with_channels(found[f"{split}_images"]) for split in SPLITS}
        labels = {split: _one_label(found[f"{split}_labels"], file) for split in SPLITS}
    return ImageSet(name, family_of(name), images, labels)


def family_of(name: str) -> str:
    """Which views a set's images bear, one of `experiments.views.FAMILIES`."""
    family = "garments" if name.startswith(GARMENTS) else "digits" if name.startswith(GLYPHS) else "natural"
    assert family in FAMILIES
    return family


def digits_settings(name: str) -> DataSettings:
    """prepare's settings for `digits`, or for `digits` and the canvas's pixels a side."""
    canvas = name.removeprefix("digits")
    scattered: dict[str, Any] = {"canvas": int(canvas), "copies": 6} if canvas else {}
    return DataSettings(name="digits", source="digits", **scattered)


def _digits(name: str, folder: Path) -> ImageSet:
    where = folder / f"{name}-prepared"
    if not (where / "dataset.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        prepare.run(digits_settings(name), where)
    dataset = open_dataset(where)
    opened = {split: dataset.split(split) for split in SPLITS}
    images = {split: np.array(found.images) for split, found in opened.items()}
    labels = {split: np.asarray(found.labels, np.int64) for split, found in opened.items()}
    return ImageSet(name, "digits", images, labels, dataset.info.copies)


def _with_channels(images: Images) -> Images:
    return images if images.ndim == 4 else images[..., None]


def _one_label(labels: Labels, file: Path) -> Labels:
    """(N, 1) or (N,) to (N,) int64."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(f"{file} has {labels.shape[1]} labels an image: the contest takes sets of one class an image")
    return labels.reshape(len(labels)).astype(np.int64)
