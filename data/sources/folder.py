"""A folder of image files: `{train,val,test}/CLASS/*.png` (also jpg, bmp, gif, tif, webp); val and test may be missing.

Files are taken in turn from each class (the first of every class, then the second, ...), so that the first N are not all of
one class and `data.limit` gives a usable small set. Classes are train's folders, sorted by name. Images without labels lie in
`{train,val,test}/*.png`, or all of them straight in the folder.
"""

import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageOps

from data import labels as lb
from data.errors import DataError
from data.format import SPLITS, SplitName
from data.groups import from_names
from data.sources import Image, ImageSet, Part, Request
from data.transform import fit_picture, to_array

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
GREY = {"1", "L", "LA"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow's names of those."""
DEEP = ("I", "F")  # I;16 and its kin, too
SIXTEEN_BITS = re.compile(r";16[BLN]")
"""In Pillow's names of what a file holds: of colours it would read the upper 8 bits alone."""
UNLABELLED = "unlabelled"
"""The name of the one class of images without labels."""


def load(request: Request) -> ImageSet:
    """The images under `request.path`. Raises DataError when the folders are not as above or there are no images."""
    if not request.path.is_dir():
        raise DataError(f"no folder at {request.path}: set data.path to one that holds train/CLASS/*.png")
    root = request.path
    folders = _folders(root)
    if odd := [name for name in folders if name not in SPLITS]:
        raise DataError(
            f"{root} has a folder {odd[0]}: only train, val and test are read; if it is a class move it to {root}/train/, if it is "
            f"none (a patient, say) to {root}/train/{UNLABELLED}/, else elsewhere"
        )
    loose = _loose(root)
    if folders and loose:
        raise DataError(f"{loose[0]} lies outside the folders of the splits: move it into {root}/train/")
    if "train" not in folders and not loose:
        raise DataError(
            f"{root} has no folder train and no images: put the images into {root}/train/CLASS/, unlabelled ones into {root}/"
        )
    places = {split: root / split for split in SPLITS if split in folders} or {SPLITS[0]: root}
    names = _folders(places["train"])
    files = {split: _files(folder, names) for split, folder in places.items()}
    channels = request.channels or _channels(files["train"][0][0])
    parts: dict[SplitName, Part] = {}
    for split, found in files.items():
        paths, labels = [file for file, _ in found], [label for _, label in found]
        images = _Files(paths, request.image_size, channels, request.channels is not None)
        groups = partial(from_names, _shown_names(paths, places[split], labelled=bool(names)), paths)
        parts[split] = Part(np.array(labels, np.int64), images.__iter__, images.read, groups)
    notes = [] if names else ["no class folders: the images are unlabelled"]
    task, names = lb.describe({split: part.labels for split, part in parts.items()}, names or [UNLABELLED], str(root))
    return ImageSet(request.name, "folder", request.licence, task, names, parts, notes)


def _folders(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))


def _loose(folder: Path) -> list[Path]:
    """Images that lie straight in a folder."""
    return sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def _files(folder: Path, names: list[str]) -> list[tuple[Path, int]]:
    """(file, label) of a split, the classes taken in turn; without classes every file is of the one class 0."""
    loose = _loose(folder)
    if loose and names:
        raise DataError(f"{loose[0]} lies outside the class folders: move it into {folder}/CLASS/")
    found = [(turn, 0, file) for turn, file in enumerate(loose)]
    for name in _folders(folder):
        if name not in names:
            has = f"it has {', '.join(names)}" if names else "its images lie in no class folder"
            raise DataError(f"{folder / name} is a class that train does not have ({has}); rename or remove it")
        images = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        found += [(turn, names.index(name), file) for turn, file in enumerate(images)]
    if not found:
        where = "in its class folders" if names else "in it"
        raise DataError(f"{folder} has 0 images ({', '.join(sorted(SUFFIXES))}) {where}; add some")
    return [(file, label) for _, label, file in sorted(found)]


def _shown_names(files: list[Path], split: Path, *, labelled: bool) -> list[str]:
    """The names that `data.group` looks at: `anna/1.png` for `train/cat/anna/1.png`; without classes all below `split`."""
    return ["/".join(file.relative_to(split).parts[1 if labelled else 0 :]) for file in files]


class _Files:
    """The images of a split."""

    def __init__(self, files: list[Path], size: int | None, channels: int, convert: bool) -> None:
        self._files, self._size, self._channels, self._convert = files, size, channels, convert

    def __iter__(self) -> Iterator[Image]:
        return self.read(np.arange(len(self._files)))

    def read(self, rows: npt.NDArray[np.int64]) -> Iterator[Image]:
        for file in (self._files[row] for row in rows.tolist()):
            image = self._read(file)
            if image.shape != self._shape:
                raise DataError(
                    f"{file} is {image.shape[1]}x{image.shape[0]} pixels where {self._files[0]} is "
                    f"{self._shape[1]}x{self._shape[0]}; set data.image_size to bring all to one"
                )
            yield image

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return self._read(self._files[0]).shape

    def _read(self, file: Path) -> Image:
        picture = open_picture(file)
        if not self._convert and (picture.mode in GREY) != (self._channels == 1):
            others = "grey" if self._channels == 1 else "colour"
            raise DataError(f"{file} is {picture.mode} where others are {others}; set data.channels")
        return to_array(fit_picture(picture, (self._size, self._size) if self._size else None, self._channels))


def _channels(file: Path) -> int:
    return 1 if open_picture(file).mode in GREY else 3


def open_picture(file: Path | BinaryIO, name: str | None = None) -> PIL.Image.Image:
    """The upright picture of an image file, 8 bits a pixel, read whole. Raises DataError, calling it `name`, where it cannot be.

    Of Pillow's formats only those of SUFFIXES, whatever the name says: others start programs to read a file, as EPS does.
    """
    name = name or str(file)
    try:
        with PIL.Image.open(file, formats=FORMATS) as opened:
            held = " ".join(str(part.args) for part in opened.tile)
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except Exception as error:  # Pillow's decoders raise of every kind
        raise DataError(f"cannot read the image {name} ({error or type(error).__name__}); mend or remove it") from error
    if picture.mode.startswith(DEEP) or SIXTEEN_BITS.search(held):
        raise DataError(f"{name} has more than 8 bits a pixel ({picture.mode}): choose the range that matters and save it as 8-bit")
    return picture
