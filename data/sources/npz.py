"""A local npz in MedMNIST's layout: `{train,val,test}_{images,labels}`; val may be missing.

Images are uint8, (N, H, W) grey or (N, H, W, 3) colour; labels integers, (N,), (N, 1) or (N, L). A text array `class_names`
may name the classes, and an array that `data.group` names, such as `train_groups`, the patient or scene of each image of train.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data import labels as lb
from data import npy_stream
from data.errors import DataError
from data.format import SPLITS, SplitName
from data.sources import Image, ImageSet, Part, Request


def load(request: Request) -> ImageSet:
    """The set in the npz at `request.path`. Raises DataError when it is damaged or in another layout."""
    parts = read_parts(request.path)
    names = _class_names(request.path)
    task, names = lb.describe({split: part.labels for split, part in parts.items()}, names, str(request.path))
    return ImageSet(request.name, "npz", request.licence, task, names, parts)


def read_parts(path: Path) -> dict[SplitName, Part]:
    """The splits in an npz of MedMNIST's layout: labels read and checked, images left to be streamed."""
    there = npy_stream.members(path)
    parts: dict[SplitName, Part] = {}
    for split in SPLITS:
        images, labels = f"{split}_images", f"{split}_labels"
        if split == "val" and not there & {images, labels}:
            continue
        for key in (images, labels):
            if key not in there:
                raise DataError(
                    f"{path} has no array {key} (it has {', '.join(sorted(there)[:8]) or 'none'}); "
                    f"save train_images, train_labels, test_images, test_labels and, if you like, val_images, val_labels"
                )
        parts[split] = _part(path, images, labels)
    return parts


def _part(path: Path, images: str, labels: str) -> Part:
    head = npy_stream.header(path, images)
    check_images(head.dtype, head.shape, f"{path}: {images}")
    label_head = npy_stream.header(path, labels)
    if label_head.shape[0] != head.shape[0]:
        raise DataError(f"{path}: {images} has {head.shape[0]} images and {labels} {label_head.shape[0]} labels; make them agree")
    found = lb.normalise(npy_stream.whole(path, labels), f"{path}: {labels}")
    return Part(found, partial(_images, path, images), groups=partial(_groups, path, len(found)))


def _groups(path: Path, count: int, name: str) -> lb.Labels:
    if name not in npy_stream.members(path):
        raise DataError(f"{path} has no array {name}, which data.group names: save one, a value for each training image")
    found = npy_stream.whole(path, name)
    if found.shape not in ((count,), (count, 1)) or found.dtype.kind not in "iuSU":
        raise DataError(f"{path}: {name} is {found.dtype} {found.shape}: groups must be integers or text, ({count},), one an image")
    return found.reshape(count)


def _images(path: Path, name: str) -> Iterator[Image]:
    for block in npy_stream.blocks(path, name):
        yield from block if block.ndim == 4 else block[..., None]  # (H, W, C) each


def check_images(dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    """Raises DataError unless an array of this type and shape can be images, (N, H, W) or (N, H, W, C) uint8, N > 0."""
    if dtype != np.uint8:
        cure = "scale them to 0 .. 255 and convert to uint8" if dtype.kind == "f" else "convert them to uint8"
        raise DataError(f"{where} has type {dtype}: images must be uint8, 0 .. 255; {cure}")
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise DataError(f"{where} has shape {shape}, channels first: images must be (N, H, W, 3); move the channels last")
    if len(shape) == 5 or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise DataError(f"{where} has shape {shape}: these are 3-D images (volumes); give 2-D ones, (N, H, W) or (N, H, W, 3)")
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(f"{where} has shape {shape}: images must be (N, H, W) grey or (N, H, W, 3) colour")
    if shape[0] == 0:
        raise DataError(f"{where} has 0 images: every split needs some")


def _class_names(path: Path) -> list[str] | None:
    if "class_names" not in npy_stream.members(path):
        return None
    head = npy_stream.header(path, "class_names")
    if head.dtype.kind != "U" or len(head.shape) != 1:
        raise DataError(f"{path}: class_names is {head.dtype} {head.shape}: give a one-dimensional array of text")
    return [str(name) for name in npy_stream.whole(path, "class_names")]
