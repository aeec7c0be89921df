"""torchvision's image sets, of those that are read without unpickling.

CIFAR-10 and CIFAR-100, among others, come as pickled batches, and nothing is ever unpickled here: for them make an npz or a
folder of images. The sets below are idx (the MNIST family), MATLAB 5 (SVHN) or text files (USPS).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data import labels as lb
from data.errors import DataError, UnsupportedRequest
from data.format import SplitName
from data.sources import Image, ImageSet, Part, Request
from data.sources.network import impatient

IDX = tuple(f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
QMNIST = tuple(f"qmnist-{split}-{what}" for split in ("train", "test") for what in ("images-idx3-ubyte", "labels-idx2-int"))
BY_TRAIN = {"train": {"train": True}, "test": {"train": False}}


@dataclass(frozen=True)
class Known:
    """What there is to know about one of torchvision's classes."""

    licence: str
    files: tuple[str, ...]
    """Where they go under the folder of downloads."""
    arguments: dict[str, dict[str, Any]] = field(default_factory=lambda: BY_TRAIN)


KNOWN = {
    "MNIST": Known("CC BY-SA 3.0", tuple(f"MNIST/raw/{name}" for name in IDX)),
    "FashionMNIST": Known("MIT", tuple(f"FashionMNIST/raw/{name}" for name in IDX)),
    "KMNIST": Known("CC BY-SA 4.0", tuple(f"KMNIST/raw/{name}" for name in IDX)),
    "QMNIST": Known("BSD-3-Clause", tuple(f"QMNIST/raw/{name}" for name in QMNIST)),
    "USPS": Known("unknown", ("usps.bz2", "usps.t.bz2")),
    "SVHN": Known(
        "non-commercial use only",
        ("train_32x32.mat", "test_32x32.mat"),
        {"train": {"split": "train"}, "test": {"split": "test"}},
    ),
}


def load(request: Request) -> ImageSet:
    """The set of torchvision's class `request.name`: official train and test. Raises DataError when it cannot be had or read."""
    if request.name not in KNOWN:
        raise UnsupportedRequest(
            f"data.name {request.name!r}: the torchvision source reads {', '.join(KNOWN)}, the sets that need no unpickling; "
            f"for another (CIFAR10, say) make an npz or a folder of images and use that source"
        )
    root = request.path
    if legacy := next(root.glob(f"{request.name}/processed/*.pt"), None):
        raise DataError(f"{legacy} is a pickled copy from an old torchvision, which is never loaded; remove {legacy.parent}")
    parts: dict[SplitName, Part] = {"train": _part(request.name, root, "train"), "test": _part(request.name, root, "test")}
    names = _class_names(request.name)
    lb.check_range(
        {split: part.labels for split, part in parts.items()}, len(names), "multi-class", f"torchvision's {request.name}"
    )
    return ImageSet(request.name, "torchvision", KNOWN[request.name].licence, "multi-class", names, parts)


def _part(name: str, root: Path, split: SplitName) -> Part:
    found = _open(name, root, split)
    labels = np.asarray(found.labels if name == "SVHN" else found.targets)
    labels = labels[:, 0] if name == "QMNIST" else labels  # (N, 8): the class, then who wrote it and where it came from
    images = np.asarray(found.data)
    where = f"torchvision's {name}, {split}"
    if len(images) != len(labels) or not len(images):
        raise DataError(f"{where} has {len(images)} images and {len(labels)} labels: its files in {root} are damaged")
    # (N, C, H, W) or (N, H, W) -> (N, H, W, C)
    images = images.transpose(0, 2, 3, 1) if images.ndim == 4 else images[..., None]
    return Part(lb.normalise(labels, f"{where}: labels"), partial(_each, images), images.__getitem__)


def _each(images: Image) -> Iterator[Image]:
    yield from images


def _open(name: str, root: Path, split: SplitName) -> Any:
    """torchvision's own object; what is on disk is tried before the network."""
    from torchvision import datasets

    known = KNOWN[name]
    make = partial(getattr(datasets, name), root=root, **known.arguments[split])
    try:
        if all((root / file).is_file() for file in known.files):
            return make(download=False)
        with impatient():
            return make(download=True)  # also unpacks .gz files that are there already
    except Exception as error:  # torchvision asserts, and raises whatever the network or a damaged file leads to
        raise DataError(
            f"cannot read torchvision's {name} from {root}, nor download it ({error or type(error).__name__}): "
            f"put {', '.join(known.files)} into {root}, or set data.path to the folder that has them"
        ) from error


def _class_names(name: str) -> list[str]:
    from torchvision import datasets

    names = getattr(getattr(datasets, name), "classes", None)
    return list(names) if names else [str(digit) for digit in range(10)]
