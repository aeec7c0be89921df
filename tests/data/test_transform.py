import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from data.transform import fit
from tests.data.files import digits

IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3])))


@given(IMAGES, st.none() | st.integers(4, 20), st.sampled_from([None, 1, 3]))
def test_shape_is_what_was_asked_for(image, size, channels):
    found = fit(image, size, channels)
    assert found.dtype == np.uint8
    assert found.shape == (size or image.shape[0], size or image.shape[1], channels or image.shape[2])


@given(IMAGES)
def test_nothing_asked_for_nothing_changed(image):
    assert np.array_equal(fit(image, None, None), image)


@given(IMAGES.filter(lambda i: i.shape[2] == 1))
def test_grey_to_colour_and_back_is_exact(image):
    assert np.array_equal(fit(fit(image, None, 3), None, 1), image)


def test_colour_to_grey_is_luma():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert fit(red, None, 1)[0, 0, 0] == round(0.299 * 255)


def test_resizing_a_real_image_keeps_its_brightness():
    image = digits()[0][0][..., None]
    assert fit(image, 32, None).mean() == pytest.approx(image.mean(), rel=0.05)
    assert np.array_equal(
        fit(image, 16, None)[..., 0], np.asarray(Image.fromarray(image[..., 0]).resize((16, 16), Image.Resampling.BICUBIC))
    )


def test_an_oblong_image_is_cut_to_its_centre_rather_than_stretched():
    image = np.zeros((8, 24, 1), np.uint8)
    image[:, 8:16] = 200
    assert (fit(image, 8, None) == 200).all()
