"""Images that a person names: picture files, folders of them, npz files; block by block, all in the one shape that is wanted.

Unlike a source (data/sources/) nothing here knows of splits or labels: new images have neither. Memory holds a block of images, and
of a folder its folders and the names in one at a time, whatever there is in all.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL.Image

from data import npy_stream
from data.decoding import cores
from data.errors import DataError
from data.format import SPLITS
from data.sources import Image
from data.sources.folder import GREY, SUFFIXES, open_picture
from data.sources.npz import check_images
from data.transform import fit_picture, to_array, to_picture

Images = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]
"""(H, W, C)."""

BLOCK_BYTES = 16 * 2**20
LONGEST = 256
"""Images a block at most: a network's activations are many times the pixels."""
NPZ = ".npz"


@dataclass(frozen=True)
class Origin:
    """Where an image was read: a picture file, or a row of an array of an npz file."""

    file: str
    array: str | None = None
    row: int | None = None


@dataclass(frozen=True)
class Block:
    """Successive images (n, H, W, C) uint8, n > 0, and where each came from."""

    images: Images
    origins: list[Origin]


class NamedImages:
    """What was named, checked to be there and to hold images: `len` of them as `blocks`, in an order that names alone decide.

    Of a folder all pictures at any depth, its files before its folders, each by name; hidden ones and other kinds are passed over.
    Links to folders are followed, to none a second time.
    Of an npz the arrays `images`, `train_images`, `val_images` and `test_images` that it has, in that order, or those of `arrays`.
    """

    def __init__(self, paths: Sequence[Path], shape: Shape, *, fit: bool = False, arrays: Sequence[str] = ()) -> None:
        """`fit` cuts an image of another shape to its central part and resamples it, as prepare does for data.image_size.

        Raises DataError for a path that is not there, cannot be read or holds no images, and for an array of another type, shape or
        name.
        """
        self._shape, self._fit = shape, fit
        self._sources: list[tuple[Path, str | None]] = [part for path in paths for part in _parts(path, arrays)]
        self._count = sum(self._number(path, array) for path, array in self._sources)

    def __len__(self) -> int:
        return self._count

    def blocks(self, skipped: Callable[[str], None] | None = None) -> Iterator[Block]:
        """Yield the images. A picture that cannot be used raises DataError, or with `skipped`, which is told why, is left out."""
        at_once = max(1, min(LONGEST, BLOCK_BYTES // int(np.prod(self._shape))))
        with ThreadPoolExecutor(cores(), "decode") as pool:
            for path, array in self._sources:
                if array is not None:
                    yield from self._of_array(path, array, at_once)
                    continue
                pictures = _pictures(path)
                while files := list(islice(pictures, at_once)):
                    images, origins = [], []
                    for file, found in zip(files, pool.map(self._read, files, repeat(skipped is not None)), strict=True):
                        if isinstance(found, str):
                            assert skipped is not None
                            skipped(found)
                        else:
                            images.append(found)
                            origins.append(Origin(_text(file)))
                    if images:
                        yield Block(np.stack(images), origins)

    def _number(self, path: Path, array: str | None) -> int:
        if array is None:
            number = sum(1 for _ in _pictures(path))
            if not number:
                raise DataError(f"{path} has 0 images ({', '.join(sorted(SUFFIXES))}); name a folder that has some")
            return number
        head = npy_stream.header(path, array)
        check_images(head.dtype, head.shape, f"{path}: {array}")
        shape = (*head.shape[1:3], head.shape[3] if len(head.shape) == 4 else 1)
        if shape != self._shape and not self._fit:
            raise DataError(_other_shape(f"{path}: {array} holds images of", shape, self._shape))
        return head.shape[0]

    def _of_array(self, path: Path, array: str, at_once: int) -> Iterator[Block]:
        row = 0
        for rows in npy_stream.blocks(path, array):
            for start in range(0, len(rows), at_once):
                images = rows[start : start + at_once]
                images = images if images.ndim == 4 else images[..., None]
                if images.shape[1:] != self._shape:
                    images = np.stack([fit(to_picture(image), self._shape) for image in images])
                yield Block(images, [Origin(_text(path), array, row + n) for n in range(len(images))])
                row += len(images)

    def _read(self, file: Path, lenient: bool) -> "Image | str":
        """The image of a file, or with `lenient` what is wrong with it."""
        try:
            return read_picture(file, self._shape, fit_shape=self._fit)
        except DataError as error:
            if not lenient:
                raise
            return str(error)


def read_picture(file: Path | BinaryIO, shape: Shape, *, fit_shape: bool, name: str | None = None) -> Image:
    """A picture file as (H, W, C) uint8. Raises DataError where it cannot be read or, unless `fit_shape`, has another shape.

    Where grey is wanted, a picture whose three channels are equal is grey, as gif and webp have no other. `name` is what its errors
    call it where it has no path.
    """
    picture = open_picture(file, name)
    grey = picture.mode in GREY or (shape[2] == 1 and _equal_channels(picture))
    found = (picture.height, picture.width, 1 if grey else 3)
    if found != shape and not fit_shape:
        raise DataError(_other_shape(f"{f'the image {name}' if name else file} is", found, shape))
    return fit(picture, shape)


def fit(picture: PIL.Image.Image, shape: Shape) -> Image:
    """A picture as (H, W, C) uint8: of what is oblong the central part, bicubic with antialiasing, as data/transform.py does it."""
    height, width, channels = shape
    return to_array(fit_picture(picture, (width, height), channels))


def _parts(path: Path, arrays: Sequence[str]) -> list[tuple[Path, str | None]]:
    """(path, array) of each array of an npz; (path, None) of a picture or folder."""
    if path.suffix.lower() == NPZ:
        there = npy_stream.members(path)
        wanted = list(arrays) or [name for name in ("images", *(f"{split}_images" for split in SPLITS)) if name in there]
        if not wanted or not there.issuperset(wanted):
            missing = next((name for name in wanted if name not in there), "images, nor one of a split such as test_images")
            raise DataError(
                f"{path} has no array {missing} (it has {', '.join(sorted(there)[:8]) or 'none'}); name one with --array"
            )
        return [(path, name) for name in wanted]
    if not path.exists():
        raise DataError(f"no image, folder or npz at {path}; check the path")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is no image by its name ({', '.join(sorted(SUFFIXES))}) and no {NPZ}; rename or leave it out")
    return [(path, None)]


def _pictures(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    seen = set()
    for folder, inside, files in os.walk(path, onerror=_unreadable, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # links may go round in circles
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _unreadable(error: OSError) -> None:
    raise DataError(f"cannot read the folder {error.filename} ({error.strerror}): mend its permissions, or leave it out") from error


def _equal_channels(picture: PIL.Image.Image) -> bool:
    values = to_array(picture.convert("RGB"))
    return bool((values == values[..., :1]).all())


def _other_shape(what: str, found: tuple[int, ...], wanted: Shape) -> str:
    has, takes = ("x".join(map(str, shape)) for shape in (found, wanted))
    return f"{what} {has} (height, width, channels) where the model takes {takes}; --fit cuts and resamples as data.image_size does"


def _text(path: Path) -> str:
    """A path as text; bytes that are no UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")
