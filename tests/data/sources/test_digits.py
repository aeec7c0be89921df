import numpy as np
from sklearn.datasets import load_digits

from data.sources import Request, load


def test_all_digits_in_full_range():
    found = load("digits", Request("digits"))
    images = np.stack(list(found.parts["train"].images()))
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(np.rint(images[..., 0] / 255 * 16), load_digits().images)
    assert found.parts["train"].labels[:5].tolist() == [0, 1, 2, 3, 4]
    assert found.class_names == [str(n) for n in range(10)]
    assert set(found.parts) == {"train"}
