"""How often `dier monitor` raises a false alarm, and what it sees: draws of real images against a registered version.

    OMP_NUM_THREADS=1 python -m benchmarks.monitor fashion@champion real-data/fashionmnist.npz --other real-data/mnist.npz

Draws are of the test split, which the model never saw; each is held to a reference as the command would at its default alpha, by
the test in embedding space and the shares of pixels that decide. A version has one reference, so its false alarms are those of one
draw of it: beside that, references are drawn from the test split too, and new images from the rest of it. The two are
exchangeable, so over such references p is uniform; a rate of one alone may be far off.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest

from components.inference.registered_model import RegisteredModel, load
from components.monitoring.decision import decide, part
from components.monitoring.pixels import p_values
from components.monitoring.two_sample import Neighbours, compare
from components.probing.reference import MEASURES
from components.registry import package
from data.quality.statistics import block_statistics

Images = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]
Measured = Mapping[str, Numbers]
"""Of n images `embedding` (n, D) and MEASURES (n,), as a version carries them of its reference."""
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
    parser.add_argument(
        "--draws", type=int, default=100, help="against the version's reference; half against others; a tenth shifted"
    )
    parser.add_argument("--references", type=int, default=8, help="drawn from the test images, of the size of the version's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.process_time()
    model = load(given.model)
    own: Measured = load_file(model.files / package.REFERENCE)
    pool, labels = _pool(given.images, given.pool, given.seed)
    other = None if given.other is None else _pool(given.other, given.pool // 5, given.seed)[0]
    as_they_were = _measured(model, pool)
    print(f"| new images | reference | exit code 4 | MMD, p <= {part(ALPHA):.4f} | p <= 0.05 | p uniform (Kolmogorov-Smirnov) |")
    print("|---|---|---|---|---|---|")
    for size in given.sizes:
        _alarms(f"{size} | the version's", [_held(as_they_were, own, size, given.draws, given.seed)])
    for size in given.sizes:
        random = np.random.default_rng([given.seed, size])
        drawn = [np.split(random.permutation(len(pool)), [len(own["embedding"])]) for _ in range(given.references)]
        each = [
            _held(_rows(as_they_were, rest), _rows(as_they_were, kept), size, given.draws // 2, given.seed + n)
            for n, (kept, rest) in enumerate(drawn)
        ]
        _alarms(f"{size} | {given.references} draws", each)
    neighbours = Neighbours(own["embedding"])
    print(f"\n| new images are | {' | '.join(f'exit code 4, of {size}' for size in given.sizes)} | unlike |")
    print(f"|---|{'---|' * (len(given.sizes) + 1)}")
    _found("as they were", as_they_were, neighbours, ["" for _ in given.sizes])
    for name, images in shifts(pool[: given.pool // 5], labels[: given.pool // 5], other):
        new = _measured(model, np.ascontiguousarray(images))
        ends = [_held(new, own, size, given.draws // 10, given.seed)[1].mean() for size in given.sizes]
        _found(name, new, neighbours, [f"{share:.2f}" for share in ends])
    print(f"\n{time.process_time() - started:.0f} s of processor time, alpha {ALPHA:g}, {given.draws} draws, seed {given.seed}")


def _measured(model: RegisteredModel, images: Images) -> Measured:
    blocks = [images[at : at + BLOCK] for at in range(0, len(images), BLOCK)]
    statistics = [block_statistics(block) for block in blocks]
    embedding = np.concatenate([model.predict(block)["embedding"] for block in blocks])
    return {"embedding": embedding, **{name: np.concatenate([block[name] for block in statistics]) for name in MEASURES}}


def _rows(measured: Measured, rows: npt.NDArray[np.int64]) -> Measured:
    return {name: values[rows] for name, values in measured.items()}


def _held(new: Measured, reference: Measured, size: int, draws: int, seed: int) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """The MMD's p of draws of `new`, and whether the command would end with 4: (draws,) each."""
    random, count = np.random.default_rng([seed, size]), len(new["embedding"])
    p, ends = [], []
    for n in range(draws):
        drawn = _rows(new, random.choice(count, min(size, count), replace=False))
        p.append(compare(drawn["embedding"], reference["embedding"], seed=n).p)
        ends.append(bool(decide({"embeddings": p[-1], **p_values(drawn, reference)}, ALPHA)))
    return np.array(p), np.array(ends)


def _alarms(name: str, each: list[tuple[Numbers, npt.NDArray[np.bool_]]]) -> None:
    """A row of the first table: rates, of several references with the least and the most of them."""

    def shown(rates: list[float]) -> str:
        between = f" ({min(rates):.2f} to {max(rates):.2f})" if len(rates) > 1 else ""
        return f"{np.mean(rates):.3f}{between}"

    ends = shown([float(ended.mean()) for _, ended in each])
    levels = " | ".join(shown([float((p <= level).mean()) for p, _ in each]) for level in (part(ALPHA), 0.05))
    # of several references together the p are not independent, which is what Kolmogorov-Smirnov takes them for
    uniform = f"p = {kstest(each[0][0], 'uniform').pvalue:.2g}" if len(each) == 1 else ""
    print(f"| {name} | {ends} | {levels} | {uniform} |", flush=True)


def _found(name: str, new: Measured, neighbours: Neighbours, ends: list[str]) -> None:
    """A row of the second table."""
    unlike = (neighbours.distances(new["embedding"]) > neighbours.limit).mean()
    print(f"| {name} | {' | '.join(ends)} | {100 * unlike:.1f} % |", flush=True)


def _pool(file: Path, size: int, seed: int) -> tuple[Images, npt.NDArray[np.int64]]:
    """Some images (n, H, W, C) of the test split of an npz, and their labels (n,)."""
    with np.load(file) as opened:
        images, labels = opened["test_images"], opened["test_labels"].reshape(-1)
    rows = np.random.default_rng(seed).permutation(len(images))[:size]
    return (images if images.ndim == 4 else images[..., None])[rows], labels[rows].astype(np.int64)


if __name__ == "__main__":
    main()
