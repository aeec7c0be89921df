"""Labels of any source, checked and brought into the two shapes of the on-disk format."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.format import MULTI_LABEL, SplitName

Labels = npt.NDArray[Any]


def normalise(raw: Labels, where: str) -> Labels:
    """Integers (N,), (N, 1) or (N, L) to (N,) int64 classes or, for L > 1, (N, L) uint8 yes/no labels.

    `where` names the array in errors. Raises DataError for another type or shape, a negative class, a yes/no label beyond 0 and 1.
    """
    if raw.dtype.kind not in "iub":
        raise DataError(f"{where} has type {raw.dtype}: labels must be integers 0 .. K - 1; convert them")
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim not in (1, 2) or 0 in raw.shape[1:]:
        raise DataError(f"{where} has shape {raw.shape}: labels must be (N,), (N, 1) or (N, L)")
    low, high = (int(raw.min()), int(raw.max())) if raw.size else (0, 0)
    if raw.ndim == 2:
        if low < 0 or high > 1:
            raise DataError(f"{where} has shape {raw.shape} and values {low} .. {high}: several labels an image must be 0 or 1")
        return raw.astype(np.uint8)
    if low < 0:
        raise DataError(f"{where} holds the negative label {low}: labels must be 0 .. K - 1; remove or renumber those images")
    if high > np.iinfo(np.int64).max:
        raise DataError(f"{where} holds the label {high}, which is out of range: labels must be 0 .. K - 1")
    return raw.astype(np.int64)


def check_range(labels: Mapping[SplitName, Labels], classes: int, task: str, where: str) -> None:
    """Refuse labels that do not fit `classes` and `task`. Raises DataError naming the split and the label."""
    for split, found in labels.items():
        if (task == MULTI_LABEL) != (found.ndim == 2):
            raise DataError(f"{where}: {split} labels have shape {found.shape}, which does not fit the task {task!r}")
        if found.ndim == 2 and found.shape[1] != classes:
            raise DataError(f"{where}: {split} has {found.shape[1]} labels an image where there are {classes} classes")
        if found.ndim == 1 and found.size and found.max() >= classes:
            raise DataError(
                f"{where}: {split} holds the label {found.max()}, out of range: the {classes} classes are 0 .. {classes - 1}"
            )


def describe(labels: Mapping[SplitName, Labels], names: list[str] | None, where: str) -> tuple[str, list[str]]:
    """The task and class names of a set that does not state its task; train's labels say how many classes there are.

    Raises DataError when a label is out of range, or when train cannot hold an image of every class.
    """
    train = labels["train"]
    if train.ndim == 2:
        classes, task = train.shape[1], MULTI_LABEL
    else:
        classes = int(train.max(initial=-1)) + 1 if names is None else len(names)
        task = "binary-class" if classes == 2 else "multi-class"
        if names is None and classes > max(len(train), 1):
            raise DataError(
                f"{where}: train holds the label {classes - 1}, which is out of range: its {len(train)} images cannot hold "
                f"that many classes; number the classes 0 .. K - 1"
            )
    names = [str(n) for n in range(classes)] if names is None else names
    check_range(labels, len(names), task, where)
    return task, names
