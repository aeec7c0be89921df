"""The handwritten digits that scikit-learn ships: 1,797 real images of 8x8, no network needed."""

from collections.abc import Iterator

import numpy as np

from data.sources import Image, ImageSet, Part, Request

NOTE = "UCI Optical Recognition of Handwritten Digits (test part), as shipped with scikit-learn; grey values 0..16 scaled to 0..255"


def load(request: Request) -> ImageSet:
    """All digits as one part: the set has no official splits, so val and test are made from it."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]  # (N, 8, 8, 1)

    def one_by_one() -> Iterator[Image]:
        yield from images

    train = Part(bunch.target.astype(np.int64), one_by_one, images.__getitem__)
    return ImageSet("digits", "digits", "CC BY 4.0", "multi-class", [str(n) for n in bunch.target_names], {"train": train}, [NOTE])
