"""Where images come from: one module a source, and what every source gives.

A source is a module with `load(request: Request) -> ImageSet`. It names its official splits and hands each one over an image at
a time; splits that are missing, the limit, and the writing are the same for all of them and stand outside.

The settings read the names of `SOURCES`, so numpy is imported for the type checker alone: `dier params` does without.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from data.format import SplitName

Image: TypeAlias = "npt.NDArray[np.uint8]"
"""One image: (H, W, C) uint8, C is 1 or 3."""

DOWNLOADS = "real-data"
"""Where downloaded sets are looked for, and put, unless `data.path` says otherwise."""
SOURCES = {
    "digits": "data.sources.digits",
    "npz": "data.sources.npz",
    "medmnist": "data.sources.medmnist",
    "torchvision": "data.sources.torchvision",
    "folder": "data.sources.folder",
}


@dataclass(frozen=True)
class Request:
    """What a source is asked for; the fields are those of the `data` settings."""

    name: str
    path: Path = Path(DOWNLOADS)
    image_size: int | None = None
    channels: int | None = None
    licence: str = "unknown"


@dataclass(frozen=True)
class Part:
    """The images of one split as the source has them."""

    labels: npt.NDArray[Any]
    """(N,) int64, or (N, L) uint8 for multi-label; checked by `data.labels`."""
    images: Callable[[], Iterator[Image]]
    """Reads the images anew from the first, one at a time, in the order of the labels. Raises DataError where one is unreadable."""
    read: Callable[[npt.NDArray[np.int64]], Iterable[Image]] | None = None
    """Reads the images at any rows, in several threads at once; null where the source is read from its first image on. Raises
    DataError as `images` does."""
    groups: Callable[[str], npt.NDArray[Any]] | None = None
    """Given `data.group`, what names each image's group, (N,); null where the source knows of none. Raises DataError and
    UnsupportedRequest."""


@dataclass(frozen=True)
class ImageSet:
    """A set as its source has it. `parts` holds the official splits; train is always there."""

    name: str
    source: str
    licence: str
    task: str
    class_names: list[str]
    parts: Mapping[SplitName, Part]
    notes: list[str] = field(default_factory=list)


def load(source: str, request: Request) -> ImageSet:
    """Open a set. Raises DataError when it cannot be used, UnsupportedRequest when the source has no such set."""
    return cast(ImageSet, importlib.import_module(SOURCES[source]).load(request))
