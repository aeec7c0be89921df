"""Pasting: each image whole, once at each of its places, the same places whatever else is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UnsupportedRequest
from data.scatter import Scatter
from tests.data.files import check_message, digits

IMAGES = digits()[0][:40, ..., None]


def scattered(images: np.ndarray, rows: np.ndarray, *, block: int = 7, **given_) -> np.ndarray:
    scatter = Scatter(**{"canvas": 16, "copies": 6, "seed": 0, "split": "train", **given_})
    blocks = [images[start : start + block] for start in range(0, len(images), block)]
    return np.concatenate(list(scatter.pasted(blocks, rows)))


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 3]),
    st.integers(10, 20),
    st.integers(1, 4),
    st.sampled_from(["train", "val", "test"]),
)
def test_a_copy_is_the_image_whole_and_nothing_else(height, width, channels, canvas, copies, split):
    image = np.random.default_rng(0).integers(1, 256, (height, width, channels)).astype(np.uint8)
    found = scattered(image[None], np.array([5]), canvas=canvas, copies=copies, split=split)
    assert found.shape == (copies, canvas, canvas, channels)
    places = set()
    for copy in found:
        down, across = (np.flatnonzero(copy.any(axis=(1 - axis, 2))) for axis in (0, 1))
        np.testing.assert_array_equal(copy[down[0] : down[0] + height, across[0] : across[0] + width], image)
        assert np.count_nonzero(copy) == image.size
        places.add((down[0], across[0]))
    assert len(places) == copies, "no two copies of an image stand at one place, so none is another's double"


def test_every_place_is_used_and_copies_of_all_of_them_are_all_there_are():
    found = scattered(IMAGES[:1], np.arange(1), canvas=10, copies=9)
    assert len({copy.tobytes() for copy in found}) == 9
    tops = np.concatenate([Scatter(16, 6, 0, "train").places(8, 8, row) for row in range(2000)])
    counts = np.stack([np.bincount(tops[:, axis], minlength=9) for axis in (0, 1)])
    assert counts.shape == (2, 9)
    assert np.abs(counts / len(tops) - 1 / 9).max() < 0.01, "uniform: 12,000 draws have a standard deviation of 0.003"


def test_places_depend_on_seed_split_and_row_alone():
    whole = scattered(IMAGES, np.arange(40))
    np.testing.assert_array_equal(scattered(IMAGES, np.arange(40), block=1), whole)
    some = np.array([3, 17, 39])
    np.testing.assert_array_equal(scattered(IMAGES[some], some), whole.reshape(40, 6, 16, 16, 1)[some].reshape(18, 16, 16, 1))
    for other in ({"seed": 1}, {"split": "val"}):
        assert (scattered(IMAGES, np.arange(40), **other) != whole).any(axis=(1, 2, 3)).mean() > 0.9
    same = scattered(np.repeat(IMAGES[:1], 40, 0), np.arange(40))
    assert len({image.tobytes() for image in same}) > 60, "each row has places of its own: of 81 most are used"


def test_occupancy_is_the_share_of_pixels_that_are_content():
    scatter = Scatter(16, 6, 0, "train")
    pasted = np.concatenate(list(scatter.pasted([IMAGES], np.arange(40))))
    assert scatter.occupancy == pytest.approx(np.count_nonzero(pasted) / pasted.size)
    colour = Scatter(16, 2, 0, "train")
    list(colour.pasted([np.stack([IMAGES[..., 0]] * 2 + [np.zeros((40, 8, 8), np.uint8)], -1)], np.arange(40)))
    assert colour.occupancy == scatter.occupancy, "a pixel counts once, whatever its colour"


@pytest.mark.parametrize(
    ("canvas", "copies", "said"), [(8, 1, "data.canvas 8 is no larger than an image of 8x8"), (9, 5, "has 4 places")]
)
def test_what_does_not_fit_is_refused(canvas, copies, said):
    with pytest.raises(UnsupportedRequest, match=said) as caught:
        scattered(IMAGES, np.arange(40), canvas=canvas, copies=copies)
    check_message(caught.value)
