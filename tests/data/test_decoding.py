import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import decoding
from data.errors import DataError
from data.sources import Part
from tests.data.files import digits

IMAGES = digits()[0][:, :, :, None]


def streamed(images=IMAGES) -> Part:
    return Part(np.zeros(len(images), np.int64), lambda: iter(images))


def by_rows(images=IMAGES) -> Part:
    return Part(np.zeros(len(images), np.int64), lambda: iter(images), images.__getitem__)


@pytest.mark.parametrize("part", [streamed(), by_rows()], ids=["streamed", "by rows"])
@given(rows=st.lists(st.integers(0, len(IMAGES) - 1), unique=True, min_size=1), threads=st.integers(1, 4))
def test_rows_come_in_order_from_any_source_and_any_number_of_threads(part, rows, threads):
    chosen = np.sort(np.array(rows))
    np.testing.assert_array_equal(np.concatenate(list(decoding.blocks(part, chosen, None, None, threads))), IMAGES[chosen])


def test_images_are_brought_to_the_size_and_channels_asked_for():
    for part in (streamed(), by_rows()):
        found = list(decoding.blocks(part, np.arange(300), 12, 3, 2))
        assert {block.shape[1:] for block in found} == {(12, 12, 3)}
        assert max(len(block) for block in found) <= 300


def test_images_of_two_shapes_are_refused():
    mixed = [np.zeros((8, 8, 1), np.uint8)] * 5 + [np.zeros((8, 9, 1), np.uint8)]
    reads = (None, lambda rows: [mixed[row] for row in rows])
    for read in reads:
        part = Part(np.zeros(6, np.int64), lambda: iter(mixed), read)
        with pytest.raises(DataError, match="image 5 is 8x9x1 where those before it are 8x8x1"):
            list(decoding.blocks(part, np.arange(6), None, None, 2))


def test_a_source_that_ends_early_is_refused():
    with pytest.raises(DataError, match="gave 1797 images where it promised 1798"):
        list(decoding.blocks(streamed(), np.arange(1798), None, None))


def test_no_more_blocks_are_under_way_than_threads_can_decode(monkeypatch):
    monkeypatch.setattr(decoding, "LONGEST", 10)
    read, lock = list[int](), threading.Lock()

    def reading(rows: np.ndarray) -> Iterator[np.ndarray]:
        with lock:
            read.append(len(rows))
        yield from IMAGES[rows]

    found = decoding.blocks(Part(np.zeros(1000, np.int64), lambda: iter(IMAGES), reading), np.arange(1000), None, None, 3)
    next(found)
    assert sum(read) <= 1 + 10 * (2 * 3 + 1)
    found.close()  # nobody wants the rest
    assert sum(read) <= 1 + 10 * (2 * 3 + 1)


def test_the_share_of_a_pod_is_what_it_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert decoding.cores() == 3
    for value in ("", "0", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert decoding.cores() >= 1
