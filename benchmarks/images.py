"""A million distinct images from thousands of real ones: python -m benchmarks.images cifar10.npz fashionmnist.npz --out made.npz

Each is a random crop, mirrored or not, of a picture of the first file, mixed with one of the second (of the first again where it is
the only one), each channel with a weight of its own, then with a random contrast and brightness. Its class is the first picture's,
or with `--pairs` that of both: the first's times the number of the second's, plus the second's. The files have MedMNIST's layout,
and so has what is written: 80 % of it train, 10 % val, 10 % test, uncompressed. Each of these draws from the same split of the
files, so no picture is behind images of two; where a file has no val, its test is halved.

Integer arithmetic on NumPy's seeded streams: the same arguments give the same bytes. Memory holds the files and a block.
"""

import argparse
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
SOURCE, CROP = 32, 28
"""Pixels a side that real pictures are brought to, and of a crop."""
BLOCK = 2048
LEAST_RANGE = 8
"""Of 256 grey levels: real pictures that span less, all but blank, are left out."""


@dataclass(frozen=True)
class Pictures:
    """Real ones of one split: (N, SOURCE, SOURCE, C), and their classes (N,)."""

    images: Pixels
    labels: Ints

    def crops(self, rng: np.random.Generator, rows: Ints, height: int, width: int) -> Pixels:
        """Of each picture in `rows` a random window, half of them mirrored, brought to (n, height, width, C)."""
        room = SOURCE - CROP + 1
        down, right, mirrored = (rng.integers(0, high, len(rows)) for high in (room, room, 2))
        y = np.arange(height) * CROP // height  # nearest neighbour
        x = np.arange(width) * CROP // width
        columns = right[:, None] + np.where(mirrored[:, None], x[::-1], x)  # (n, width)
        pixel = ((rows[:, None] * SOURCE + down[:, None] + y)[:, :, None] * SOURCE + columns[:, None]).reshape(-1)
        cut: Pixels = self.images.reshape(-1, self.images.shape[3])[pixel].reshape(len(rows), height, width, -1)
        return cut


def read(file: Path, split: str, channels: int) -> Pictures:
    """A split of an npz in MedMNIST's layout; without val, val and test are the halves of test."""
    with np.load(file) as arrays:
        halved = "val_images" not in arrays and split != "train"
        name = "test" if halved else split
        images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"].reshape(-1).astype(np.int64)
    if halved:
        half = slice(split == "test", None, 2)
        images, labels = images[half], labels[half]
    levels = images.reshape(len(images), -1)
    seen = np.ptp(levels, 1) >= LEAST_RANGE
    images, labels = images[seen], labels[seen]
    y, x = (np.arange(SOURCE) * side // SOURCE for side in images.shape[1:3])
    images = images[:, y[:, None], x]
    if images.ndim == 3:
        images = images[..., None]
    if channels == 1 and images.shape[3] == 3:
        images = (images @ np.array([77, 150, 29], np.uint16) >> 8).astype(np.uint8)[..., None]
    return Pictures(np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], channels))), labels)


def mix(rng: np.random.Generator, first: Pixels, second: Pixels) -> Pixels:
    """(n, H, W, C) twice to one.

    The first has a weight of 50 to 85 % in a channel; contrast changes by up to 30 %, brightness by up to 24 of 256 levels.
    """
    shape = (len(first), 1, 1, first.shape[3])
    share = rng.integers(128, 218, shape)  # of 256
    contrast = rng.integers(179, 333, (len(first), 1, 1, 1))
    ours, theirs = ((part * contrast >> 8).astype(np.int32) for part in (share, 256 - share))
    # contrast is about the middle, 128: what is added makes up for it
    added = ((128 * (256 - contrast)) + 256 * rng.integers(-24, 25, (len(first), 1, 1, 1))).astype(np.int32)
    mixed = first * ours
    mixed += second * theirs
    mixed += added
    mixed >>= 8
    np.clip(mixed, 0, 255, out=mixed)
    made = mixed.astype(np.uint8)
    levels = made.reshape(len(made), -1)
    blank = levels.min(1) == levels.max(1)
    made[blank] = first[blank]  # saturated by the brightness
    return made


@dataclass(frozen=True)
class Recipe:
    """What to make: images (H, W, C) from one file or two."""

    files: list[Path]
    shape: tuple[int, int, int] = (28, 28, 3)
    pairs: bool = False
    seed: int = 0

    def blocks(self, split: str, count: int) -> Iterator[tuple[Pixels, Ints]]:
        """`count` images of a split and their classes, some at a time."""
        height, width, channels = self.shape
        sets = [read(file, split, channels) for file in self.files[:2]]
        first, second = sets[0], sets[-1]
        classes = int(second.labels.max()) + 1
        for start in range(0, count, BLOCK):
            n = min(BLOCK, count - start)
            rng = np.random.default_rng([self.seed, list(SPLITS).index(split), start])
            a, b = (rng.integers(0, len(pictures.labels), n) for pictures in (first, second))
            images = mix(rng, *(p.crops(rng, rows, height, width) for p, rows in ((first, a), (second, b))))
            yield images, first.labels[a] * classes + second.labels[b] if self.pairs else first.labels[a]


def write(out: Path, recipe: Recipe, count: int) -> None:
    """Write an npz of `count` images. A zip's members carry no time here, so that bytes repeat."""
    counts = {split: round(count * share) for split, share in SPLITS.items()}
    counts["train"] += count - sum(counts.values())
    shape = recipe.shape[:2] if recipe.shape[2] == 1 else recipe.shape
    partial = out.with_name(f".{out.name}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for split, n in counts.items():
            labels = []
            with archive.open(zipfile.ZipInfo(f"{split}_images.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)})
                for images, classes in recipe.blocks(split, n):
                    file.write(images.data)
                    labels.append(classes)
            with archive.open(zipfile.ZipInfo(f"{split}_labels.npy"), "w") as file:
                np.lib.format.write_array(file, np.concatenate(labels).astype(np.uint8)[:, None])
    partial.replace(out)


def main() -> None:
    """Write one file and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="one or two npz files in MedMNIST's layout")
    parser.add_argument("--images", type=int, default=100_000, help="of all splits together")
    parser.add_argument("--shape", type=int, nargs=3, default=[28, 28, 3], metavar=("H", "W", "C"))
    parser.add_argument("--pairs", action="store_true", help="a class for each pair of the files' classes, 100 of 10 and 10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    start = time.perf_counter()
    write(args.out, Recipe(args.files, tuple(args.shape), pairs=args.pairs, seed=args.seed), args.images)
    seconds, size = time.perf_counter() - start, prod(args.shape) * args.images
    print(f"{args.out}: {args.images} images, {size / 2**20:.0f} MiB of pixels, {seconds:.1f} s")


if __name__ == "__main__":
    main()
