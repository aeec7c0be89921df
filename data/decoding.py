"""The images of a source in blocks, in order, in one size and number of channels; decoded by several threads where it allows that.

Pillow, zlib and NumPy work outside Python's lock. Blocks are small and few are under way, so memory does not grow with the set.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.npy_stream import check_count
from data.sources import Image, Part
from data.transform import fit

BLOCK_BYTES = 2 * 2**20
LONGEST = 256
"""Images a block at most: the first errors show early, and so does progress."""

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


def blocks(part: Part, rows: Rows, size: int | None, channels: int | None, threads: int = 1) -> Iterator[Images]:
    """The images of `part` at the ascending `rows`, fitted (data.image_size and data.channels), as (n, H, W, C) one after another.

    The same images in the same order for any number of threads, in other blocks perhaps. Raises DataError for the first image that
    cannot be read, or that has another shape than the first.
    """
    if part.read is None or not len(rows):
        yield from _streamed(part, rows, size, channels)
        return
    read, first = part.read, fit(next(iter(part.read(rows[:1]))), size, channels)
    step = _at_once(first)

    def block(start: int) -> Images:
        return _stacked((fit(image, size, channels) for image in read(rows[start : start + step])), first.shape, start)

    starts, under_way = iter(range(0, len(rows), step)), deque[Future[Images]]()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for start in starts:
                under_way.append(pool.submit(block, start))
                if len(under_way) > 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:  # an error, or nobody wants the rest
            for left in under_way:
                left.cancel()


def cores() -> int:
    """The cores to use: OMP_NUM_THREADS, which `dier task` sets to a pod's share, else those that this process may run on."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _streamed(part: Part, rows: Rows, size: int | None, channels: int | None) -> Iterator[Images]:
    """From a source that is read from its first image on; reading ends with the last row that is wanted."""
    wanted, done, filled = iter(rows.tolist()), 0, 0
    row, held = next(wanted, None), np.empty((0,), np.uint8)
    if row is None:
        return
    for index, image in enumerate(part.images()):
        if index != row:
            continue
        image = fit(image, size, channels)
        if not filled:  # copied: the image may be a view of much more
            shape = held.shape[1:] if done else image.shape
            held = np.empty((min(_at_once(image), len(rows) - done), *shape), np.uint8)
        _check_shape(image, held.shape[1:], done + filled)
        held[filled] = image
        filled += 1
        row = next(wanted, None)
        if filled == len(held):
            yield held
            done, filled = done + filled, 0
        if row is None:
            return
    check_count(done + filled, len(rows))


def _stacked(images: Iterable[Image], shape: tuple[int, ...], start: int) -> Images:
    found = []
    for index, image in enumerate(images, start):
        _check_shape(image, shape, index)
        found.append(image)
    return np.stack(found)


def _at_once(image: Image) -> int:
    return max(1, min(LONGEST, BLOCK_BYTES // image.nbytes))


def _check_shape(image: Image, shape: tuple[int, ...], index: int) -> None:
    if image.shape != shape:
        found, expected = ("x".join(map(str, each)) for each in (image.shape, shape))
        raise DataError(
            f"image {index} is {found} where those before it are {expected}; "
            f"set data.image_size (and data.channels) to bring all to one"
        )
