"""What features are worth, alike for every method: which variant, by val; then linear probes, neighbours and few labels.

The variant (a timestep, a block, a pooling) is chosen on val by a short probe of 5,000 training images. The chosen one alone is
probed in full: on 1,000, 10,000 and all training images, C chosen on val each time (components/probing, features standardised).
Test is read with what val chose, and only where it is asked for. Every sample of training images is the same for all methods.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import cho_factor, cho_solve

from components.probing.classifier import Linear, fit_grid
from data.format import SplitName
from experiments.contestant import Features, Floats, Labels
from experiments.sets import ImageSet
from model.images import Images
from model.rank import IMAGES as RANK_IMAGES
from model.rank import both

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Record = dict[str, Any]

C_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
MAX_ITER = 300
QUICK_C, QUICK_ITER, QUICK_TRAIN, QUICK_VAL = (0.003, 0.03), 30, 5000, 5000
"""The short probe: about 0.8 s of one core for 512 numbers an image."""
SIZES = {"1k": 1000, "10k": 10_000}
"""Training images of a probe; "all" is every one, with the C that 10k chose and its neighbours on the grid."""
ALL_ITER = 100
LARGEST_FIT = 400_000_000
"""Numbers in the features of a probe on all images (1.6 GB); of wider features fewer images are taken, and the record says so."""
BANK = 10_000
"""Training images among which neighbours are looked for."""
KS = (1, 5, 20, 50)
TEMPERATURE = 0.1
FEW, FEW_DRAWS, FEW_C = (1, 5, 10, 50), 3, (0.001, 0.01, 0.1)
"""Labels a class, random choices of these, and the C among which val chooses one for all choices."""
RIDGE = (1e-3, 1e-2, 1e-1)
"""Penalties of the regression from pixels, as shares of the mean eigenvalue of their covariance."""
RIDGE_PIXELS = 4096
"""Of more numbers an image the regression from pixels would take minutes, and is left out."""


def pack(right: Bools) -> str:
    """Right or wrong (N,) as base64 of bits: 1.7 kB for 10,000 images."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpack(packed: str, images: int) -> Bools:
    """What `pack` packed, (N,)."""
    bits = np.frombuffer(base64.b64decode(packed, validate=True), np.uint8)
    return np.unpackbits(bits, count=images).astype(bool)


@dataclass(frozen=True)
class _Values:
    """Features of val and, where it is read, test."""

    val: Floats
    test: Floats | None


class Evaluation:
    """Evaluates features on one set; `test` says whether test may be read."""

    def __init__(self, images: ImageSet, *, test: bool, sizes: Sequence[str] = ("1k", "10k", "all")) -> None:
        """`sizes` are those of the probes; 10k is always among them."""
        self.images, self.test, self.sizes = images, test, {*sizes, "10k"}
        self.order: Ints = np.random.default_rng(0).permutation(len(images.labels["train"]))
        self.quick_val: Ints = np.sort(np.random.default_rng(1).permutation(len(images.labels["val"]))[:QUICK_VAL])

    def choose(self, variants: Mapping[str, Features]) -> dict[str, float]:
        """The accuracy on val of each variant by the short probe, the best first (the first given where two are equal)."""
        rows = self._sample(QUICK_TRAIN)
        images, val = self._images("train")[rows], self._images("val")[self.quick_val]
        y, truth = self._labels("train")[rows], self._labels("val")[self.quick_val]
        found = {}
        for name, features in variants.items():
            x, x_val = features(images), features(val)
            grid = fit_grid(x, y, self.images.classes, QUICK_C, QUICK_ITER, overwrite=True)
            found[name] = max(_accuracy(probe, x_val, truth) for _, probe in grid)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def score(self, features: Features) -> Record:
        """Everything of the chosen variant; accuracies are shares, `right` the packed outcome on test."""
        known, images = self._known
        x, y = features(images), self._labels("train")[known]  # (N, D), (N,)
        values = self._values(features)
        probes: dict[str, Record] = {}
        for name, number in SIZES.items():
            if name in self.sizes:
                rows = np.searchsorted(known, self._sample(number))
                probes[name] = self._probe(x[rows], y[rows], C_GRID, MAX_ITER, values)
        bank = np.searchsorted(known, self._sample(BANK))
        record: Record = {"dimension": x.shape[1], "knn": self._neighbours(x[bank], y[bank], values)}
        record["rank"] = both(torch.from_numpy(x[:RANK_IMAGES] - x[:RANK_IMAGES].mean(0)))["effective"]
        record["few"] = {str(labels): self._few(x, y, labels, values) for labels in FEW}
        record["r2"] = self._regression(x[np.searchsorted(known, self._sample(SIZES["10k"]))], values.val)
        if "all" not in self.sizes:
            return record | {"probes": probes}
        near = [c for i, c in enumerate(C_GRID) if abs(i - C_GRID.index(probes["10k"]["c"])) <= 1]
        whole = np.sort(self.order[: max(SIZES["10k"], LARGEST_FIT // x.shape[1])])
        if len(whole) < len(x):
            x = x[whole]
        # the last one: standardised where it stands, there is no second copy of it
        probes["all"] = self._probe(x, y[whole], near, ALL_ITER, values)
        return record | {"probes": probes}

    def curve(self, variants: Mapping[str, Features]) -> list[Record]:
        """Each variant by the full probe on 10,000 training images, and how linear it is in the pixels."""
        rows = self._sample(SIZES["10k"])
        found = []
        for name, features in variants.items():
            x, values = features(self._images("train")[rows]), self._values(features)
            linear = self._regression(x, values.val)
            probe = self._probe(x, self._labels("train")[rows], C_GRID, MAX_ITER, values)
            found.append({"variant": name, "r2": linear, **probe})
        return found

    def _probe(self, x: Floats, y: Labels, c_grid: Sequence[float], max_iter: int, values: _Values) -> Record:
        """The probe with the best C on val (the stronger penalty where two are equal). x (N, D) is overwritten."""
        truth = self._labels("val")
        fits = fit_grid(x, y, self.images.classes, c_grid, max_iter, overwrite=True)
        val, c, probe = max(((_accuracy(fit, values.val, truth), c, fit) for c, fit in fits), key=lambda one: one[0])
        edge = c in (C_GRID[0], C_GRID[-1])
        record: Record = {"images": len(y), "c": c, "val": val, "converged": probe.converged, "edge": edge}
        if values.test is not None:
            record |= _outcome(_predicted(probe, values.test) == self._labels("test"))
        return record

    def _few(self, x: Floats, y: Labels, number: int, values: _Values) -> Record:
        """With so many labels a class, over several choices of them: one C, the best on val on average."""
        classes = self.images.classes
        truth, x_val = self._labels("val")[self.quick_val], values.val[self.quick_val]
        fits: dict[float, list[Linear]] = {c: [] for c in FEW_C}
        for draw in range(FEW_DRAWS):
            rows = few_labels(y, number, draw)
            for c, probe in fit_grid(x[rows], y[rows], classes, FEW_C, MAX_ITER, overwrite=True):
                fits[c].append(probe)
        val = {c: float(np.mean([_accuracy(probe, x_val, truth) for probe in probes])) for c, probes in fits.items()}
        c = max(FEW_C, key=lambda c: val[c])
        record: Record = {"c": c, "val": val[c], "draws": FEW_DRAWS}
        if values.test is not None:
            record["test"] = float(np.mean([_accuracy(probe, values.test, self._labels("test")) for probe in fits[c]]))
        return record

    def _neighbours(self, bank: Floats, labels: Labels, values: _Values) -> Record:
        """Votes of the k nearest by cosine of standardised features, weighted as in Wu et al. 2018; k chosen on val."""
        mean, scale = bank.mean(0), bank.std(0) + 1e-6
        index = faiss.IndexFlatIP(bank.shape[1])
        index.add(_unit((bank - mean) / scale))

        def votes(of: Floats) -> dict[int, Labels]:
            near, who = index.search(_unit((of - mean) / scale), min(max(KS), len(bank)))
            weight = np.exp((near - near[:, :1]) / TEMPERATURE)  # relative to the nearest: no vote underflows
            table = np.zeros((len(of), self.images.classes))
            found = {}
            for k in range(weight.shape[1]):
                table[np.arange(len(of)), labels[who[:, k]]] += weight[:, k]
                if k + 1 in KS:
                    found[k + 1] = table.argmax(1)
            return found

        truth = self._labels("val")
        val = {k: float((guess == truth).mean()) for k, guess in votes(values.val).items()}
        k = max(val, key=lambda k: val[k])
        record: Record = {"k": k, "bank": len(bank), "val": val[k]}
        if values.test is not None:
            record |= _outcome(votes(values.test)[k] == self._labels("test"))
        return record

    def _regression(self, x: Floats, x_val: Floats) -> float | None:
        """R2 on val of a ridge regression from pixels to features of `_sample("10k")`, the best of a few penalties there.

        Of the variance of all features together, so a rotation of them changes nothing. None for large images.
        """
        if self._pixels is None:
            return None
        pixels, val, gram = self._pixels
        target = (x - x.mean(0)).astype(np.float64)
        moment, sought = pixels.T @ target, x_val.astype(np.float64) - x.mean(0)
        best = -np.inf
        for share in RIDGE:
            penalty = share * np.trace(gram) / len(gram) + 1e-9
            weight = cho_solve(cho_factor(gram + penalty * np.eye(len(gram))), moment)
            best = max(best, 1 - float(((sought - val @ weight) ** 2).sum() / ((sought - sought.mean(0)) ** 2).sum()))
        return best

    @cached_property
    def _known(self) -> tuple[Ints, Images]:
        """The training images that anything is fitted on: the same array each time, for features that remember by it."""
        rows = self._sample(len(self.order) if "all" in self.sizes else SIZES["10k"])
        return rows, self._images("train")[rows]

    @cached_property
    def _pixels(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Centred pixels of the training sample and of val, (N, P), and the former's Gram matrix (P, P)."""
        train, val = self._images("train")[self._sample(SIZES["10k"])], self._images("val")
        if int(np.prod(train.shape[1:])) > RIDGE_PIXELS:
            return None
        x, x_val = (images.reshape(len(images), -1) / np.float64(255) for images in (train, val))
        mean = x.mean(0)
        return x - mean, x_val - mean, (x - mean).T @ (x - mean)

    def _values(self, features: Features) -> _Values:
        return _Values(features(self._images("val")), features(self._images("test")) if self.test else None)

    def _sample(self, number: int) -> Ints:
        """So many training images (or all), at random, the same for everybody; a smaller sample is part of a larger one."""
        return np.sort(self.order[:number])

    def _images(self, split: SplitName) -> Images:
        return self.images.images[split]

    def _labels(self, split: SplitName) -> Labels:
        return self.images.labels[split]


def few_labels(labels: Labels, number: int, draw: int) -> Ints:
    """Rows of `number` images of each class in labels (N,), or of all there are, drawn at random."""
    rng = np.random.default_rng([number, draw])
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:number] for c in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def _outcome(right: Bools) -> Record:
    return {"test": float(right.mean()), "right": pack(right)}


def _predicted(probe: Linear, x: Floats) -> Labels:
    found = [(part @ probe.weight.T + probe.bias).argmax(1) for part in _parts(x)]
    return np.concatenate(found)


def _accuracy(probe: Linear, x: Floats, truth: Labels) -> float:
    return float((_predicted(probe, x) == truth).mean())


def _parts(x: Floats, rows: int = 4096) -> Iterator[Floats]:
    return (x[start : start + rows] for start in range(0, len(x), rows))


def _unit(x: Floats) -> Floats:
    return np.ascontiguousarray(x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12), np.float32)
