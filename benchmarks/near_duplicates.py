"""How well near-duplicates are told from look-alikes: python benchmarks/near_duplicates.py DATASET [DATASET ...]

For each dataset artifact: the share of its own test images with a near-duplicate in train, at several distances, and how many of
1,000 training images are found again (as themselves, not as another image) after they were re-encoded, flipped, shifted, made
brighter, or all of these.
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.format import Split, open_dataset
from data.quality import near_duplicates

Images = npt.NDArray[np.uint8]
DISTANCES = (0.04, 0.06, 0.08, 0.10, 0.12, 0.15)
PLANTED = 1000


def re_encoded(images: Images, quality: int) -> Images:
    """Each image through JPEG."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
        out[i] = np.asarray(Image.open(file)).reshape(image.shape)
    return out


def shifted(images: Images, down: int, right: int) -> Images:
    """Each image moved, its border repeated."""
    height, width = images.shape[1:3]
    return np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")[:, 1 + down :, 1 + right :][:, :height, :width]


def brighter(images: Images) -> Images:
    """10 % and 10 grey levels brighter, clipped."""
    return np.clip(images * 1.1 + 10, 0, 255).round().astype(np.uint8)


KINDS: dict[str, Callable[[Images], Images]] = {
    "JPEG, quality 75": lambda x: re_encoded(x, 75),
    "JPEG, quality 50": lambda x: re_encoded(x, 50),
    "flipped left-right": lambda x: x[:, :, ::-1],
    "flipped top-bottom": lambda x: x[:, ::-1],
    "shifted 1 pixel along one axis": lambda x: shifted(x, 0, 1),
    "shifted 1 pixel along both": lambda x: shifted(x, 1, 1),
    "brighter": brighter,
    "all: shift, flip, brighter, JPEG 80": lambda x: re_encoded(brighter(shifted(x, 1, -1)[:, :, ::-1]), 80),
}


def shares(flags: npt.NDArray[np.float64], size: int) -> str:
    """The share below each distance, in percent."""
    return " ".join(f"{100 * (flags < distance).sum() / size:7.2f}" for distance in DISTANCES)


def main() -> None:
    """Print a table for each dataset."""
    for path in sys.argv[1:]:
        dataset = open_dataset(Path(path))
        train, test = dataset.split("train"), dataset.split("test")
        print(f"\n{dataset.info.name}: {len(train)} training images of {' x '.join(map(str, dataset.info.image_shape))}")
        print(f"{'percent found below a distance of':38}" + " ".join(f"{distance:7.2f}" for distance in DISTANCES))
        start = time.perf_counter()
        pairs = [pair for pair in near_duplicates.find(test, [train], 1.0) if pair]
        seconds = time.perf_counter() - start
        print(
            f"{'test images as they are':38}" + shares(np.array([pair.distance for pair in pairs]), len(test)), f"({seconds:.0f} s)"
        )
        picked = np.sort(np.random.default_rng(0).permutation(len(train))[:PLANTED])
        for kind, change in KINDS.items():
            planted = Split("test", np.ascontiguousarray(change(train.images[picked])), np.zeros(len(picked), np.int64))
            again = [
                pair for pair in near_duplicates.find(planted, [train], 1.0) if pair and pair.other_index == picked[pair.index]
            ]
            print(f"{kind:38}" + shares(np.array([pair.distance for pair in again]), len(picked)))


if __name__ == "__main__":
    main()
