"""A folder of image files: `{train,val,test}/CLASS/*.png` (also jpg, bmp, gif, tif, webp); val and test may be missing.

Files are taken in turn from each class (the first of every class, then the second, ...), so that the first N are not all of
one class and `data.limit` gives a usable small set. Classes are train's folders, sorted by name.
"""

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

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
DEEP = ("I", "F")  # I;16 and its kin, too


def load(request: Request) -> ImageSet:
    """The images under `request.path`. Raises DataError when the folders are not as above or there are no images."""
    if not request.path.is_dir():
        raise DataError(f"no folder at {request.path}: set data.path to one that holds train/CLASS/*.png")
    root = request.path
    folders = sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))
    if odd := [name for name in folders if name not in SPLITS]:
        raise DataError(f"{root} has a folder {odd[0]}: only train, val and test are read; rename it or move it elsewhere")
    if "train" not in folders:
        raise DataError(f"{root} has no folder train: put the images into {root}/train/CLASS/")
    names = _classes(root / "train")
    files = {split: _files(root / split, names) for split in SPLITS if split in folders}
    channels = request.channels or _channels(files["train"][0][0])
    parts: dict[SplitName, Part] = {}
    for split, found in files.items():
        paths, labels = [file for file, _ in found], [label for _, label in found]
        images = _Files(paths, request.image_size, channels, request.channels is not None)
        groups = partial(from_names, _below_class(paths, root / split), paths)
        parts[split] = Part(np.array(labels, np.int64), images.__iter__, images.read, groups)
    task, names = lb.describe({split: part.labels for split, part in parts.items()}, names, str(root))
    return ImageSet(request.name, "folder", request.licence, task, names, parts)


def _classes(folder: Path) -> list[str]:
    names = sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))
    if not names:
        raise DataError(
            f"{folder} has no class folders: put its images into {folder}/CLASS/; where the classes are unknown, one folder "
            f"(unlabelled, say) in each split serves: all steps run, and the probe says that there is nothing to tell apart"
        )
    return names


def _files(folder: Path, names: list[str]) -> list[tuple[Path, int]]:
    """(file, label) of a split, the classes taken in turn."""
    found: list[tuple[int, int, Path]] = []
    for child in sorted(folder.iterdir()):
        if child.is_file() and child.suffix.lower() in SUFFIXES:
            raise DataError(f"{child} lies outside the class folders: move it into {folder}/CLASS/")
        if not child.is_dir() or child.name.startswith((".", "_")):
            continue
        if child.name not in names:
            raise DataError(f"{child} is a class that train does not have (it has {', '.join(names)}); rename or remove it")
        images = sorted(f for f in child.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        found += [(turn, names.index(child.name), file) for turn, file in enumerate(images)]
    if not found:
        raise DataError(f"{folder} has 0 images ({', '.join(sorted(SUFFIXES))}) in its class folders; add some")
    return [(file, label) for _, label, file in sorted(found)]


def _below_class(files: list[Path], split: Path) -> list[str]:
    """The names that `data.group` looks at: `anna/1.png` for `train/cat/anna/1.png`."""
    return ["/".join(file.relative_to(split).parts[1:]) for file in files]


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
        picture = _open(file)
        if not self._convert and (picture.mode in GREY) != (self._channels == 1):
            others = "grey" if self._channels == 1 else "colour"
            raise DataError(f"{file} is {picture.mode} where others are {others}; set data.channels")
        return to_array(fit_picture(picture, self._size, self._channels))


def _channels(file: Path) -> int:
    return 1 if _open(file).mode in GREY else 3


def _open(file: Path) -> PIL.Image.Image:
    """The upright picture, read whole."""
    try:
        with PIL.Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except Exception as error:  # Pillow's decoders raise of every kind
        raise DataError(f"cannot read the image {file} ({error or type(error).__name__}); mend or remove it") from error
    if picture.mode.startswith(DEEP):
        raise DataError(f"{file} has more than 8 bits a pixel ({picture.mode}): choose the range that matters and save it as 8-bit")
    return picture
