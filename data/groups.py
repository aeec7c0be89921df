"""Which images must stay on one side of a cut: those of one patient or scene, copies, and near-duplicates.

A labelling is an array (N,): images with equal values belong together.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.errors import DataError, UnsupportedRequest

Groups = npt.NDArray[np.int64]


def joined(labellings: Sequence[npt.NDArray[Any]]) -> Groups:
    """Groups 0 .. G - 1, (N,): two images share one when any labelling puts them together, directly or through others."""
    groups: Groups = np.unique(labellings[0], return_inverse=True)[1]
    for labelling in labellings[1:]:
        values = np.unique(labelling, return_inverse=True)[1]
        groups = connected(groups, groups.max(initial=0) + 1 + values)[groups]  # a value is a node too, which its images share
    return groups


def connected(left: Groups, right: Groups) -> Groups:
    """Given edges between numbers, left[i] to right[i], the connected component of each number from 0 up."""
    size = max(left.max(initial=-1), right.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    component: Groups = connected_components(graph, directed=False)[1].astype(np.int64)
    return component


def from_names(names: Sequence[str], files: Sequence[Path], pattern: str) -> npt.NDArray[np.str_]:
    r"""What the capture group of `pattern`, such as `patient(\d+)`, finds in the name of each file.

    Raises UnsupportedRequest for an unusable pattern, DataError naming the first file that does not match it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UnsupportedRequest(f"data.group {pattern!r} is no regular expression ({error}): mend it") from error
    if compiled.groups != 1:
        raise UnsupportedRequest(f"data.group {pattern!r} has {compiled.groups} capture groups: give one, as in patient(\\d+)")
    found = []
    for name, file in zip(names, files, strict=True):
        match = compiled.search(name)
        if match is None or match[1] is None:
            raise DataError(f"{file} does not match data.group {pattern!r}: rename the file, or widen the pattern")
        found.append(match[1])
    return np.array(found)
