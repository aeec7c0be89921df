"""How often `dier monitor`'s test raises a false alarm, and what it sees: draws of real images against a registered version.

    OMP_NUM_THREADS=1 python -m benchmarks.monitor fashion@champion real-data/fashionmnist.npz --other real-data/mnist.npz

Draws are of the test split, which the model never saw, and are tested at the level that the command has by default. p is uniform
over draws of both samples; here the reference is the version's own, as for whoever monitors: the figures are of that version.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest

from components.inference.registered_model import load
from components.monitoring.two_sample import Neighbours, compare
from components.registry import package

Images = npt.NDArray[np.uint8]
ALPHA = 0.01
BLOCK = 256


def shifts(pool: Images, labels: npt.NDArray[np.int64], other: Images | None) -> Iterator[tuple[str, Images]]:
    """What new images may be instead, beside the pool as it is."""
    yield "rotated by 90 degrees", np.rot90(pool, axes=(1, 2))
    yield "rotated by 180 degrees", np.rot90(pool, 2, axes=(1, 2))
    yield "inverted", 255 - pool
    yield "blurred, sigma 1 pixel", gaussian_filter(pool, (0, 1, 1, 0))
    yield "blurred, sigma 0.5", gaussian_filter(pool, (0, 0.5, 0.5, 0))
    yield "a fifth darker", (pool * 0.8).astype(np.uint8)
    yield "noise, sigma 10", _noisy(pool, 10)
    yield "class 0 missing", pool[labels != 0]
    yield "half of the classes alone", pool[labels < (labels.max() + 1) // 2]
    if other is not None:
        yield "another set", other
        yield "one in ten of another set", np.concatenate([pool[: 9 * len(pool) // 10], other[: len(pool) // 10]])


def _noisy(images: Images, sigma: float) -> Images:
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def main() -> None:
    """Print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--pool", type=int, default=10_000, help="test images behind the false alarms; a fifth of them is shifted")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.process_time()
    model = load(given.model)
    reference = load_file(model.files / package.REFERENCE)["embedding"]
    neighbours = Neighbours(reference)

    def embed(images: Images) -> npt.NDArray[np.float32]:
        return np.concatenate([model.predict(images[at : at + BLOCK])["embedding"] for at in range(0, len(images), BLOCK)])

    def drawn(vectors: npt.NDArray[np.float32], size: int, draws: int) -> list[float]:
        random = np.random.default_rng([given.seed, size])
        picked = [random.choice(len(vectors), min(size, len(vectors)), replace=False) for _ in range(draws)]
        return [compare(vectors[rows], reference, seed=n).p for n, rows in enumerate(picked)]

    pool, labels = _pool(given.images, given.pool, given.seed)
    other = None if given.other is None else _pool(given.other, given.pool // 5, given.seed)[0]
    vectors = embed(pool)
    print(f"| new images | false alarms at {ALPHA:g} | at 0.05 | at 0.1 | p uniform (Kolmogorov-Smirnov) |\n|---|---|---|---|---|")
    for size in given.sizes:
        p = np.array(drawn(vectors, size, given.draws))
        alarms = " | ".join(f"{(p <= level).mean():.3f}" for level in (ALPHA, 0.05, 0.1))
        print(f"| {size} | {alarms} | p = {kstest(p, 'uniform').pvalue:.2g} |", flush=True)
    print(f"\n| new images are | {' | '.join(f'found, of {size}' for size in given.sizes)} | unlike |\n|---|{'---|' * 3}")
    _line("as they were", vectors, given.sizes, neighbours, None)
    for name, images in shifts(pool[: given.pool // 5], labels[: given.pool // 5], other):
        _line(name, embed(np.ascontiguousarray(images)), given.sizes, neighbours, lambda v, n: drawn(v, n, given.draws // 10))
    print(
        f"\n{time.process_time() - started:.0f} s of processor time, {given.draws} and {given.draws // 10} draws, seed {given.seed}"
    )


def _line(
    name: str,
    vectors: npt.NDArray[np.float32],
    sizes: list[int],
    neighbours: Neighbours,
    drawn: Callable[[npt.NDArray[np.float32], int], list[float]] | None,
) -> None:
    found = [f"{np.mean(np.array(drawn(vectors, size)) <= ALPHA):.2f}" if drawn else "" for size in sizes]
    unlike = (neighbours.distances(vectors) > neighbours.limit).mean()
    print(f"| {name} | {' | '.join(found)} | {100 * unlike:.1f} % |", flush=True)


def _pool(file: Path, size: int, seed: int) -> tuple[Images, npt.NDArray[np.int64]]:
    """Some images (n, H, W, C) of the test split of an npz, and their labels (n,)."""
    with np.load(file) as opened:
        images, labels = opened["test_images"], opened["test_labels"].reshape(-1)
    rows = np.random.default_rng(seed).permutation(len(images))[:size]
    return (images if images.ndim == 4 else images[..., None])[rows], labels[rows].astype(np.int64)


if __name__ == "__main__":
    main()
