"""Small probes that choose t with labels: ridge regression on some training images, scored on some of val.

Ridge has a closed form, so that a probe costs less than the embeddings it is fitted on. What is fitted in the end is the probe
step's logistic regression; here only the order of the timesteps matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from components.probing.classifier import Floats, Labels
from components.probing.metrics import value_of
from components.selecting.places import levels
from model.dier import DiER
from model.features import embed
from model.images import Images

PENALTIES = (1e-3, 1e-2, 1e-1)
"""The ridge's penalties a training image, for standardised features; the best on val counts. At a noisy t a few directions hold
nearly all of an embedding's variance, and a strong penalty would leave a clean t's many small ones unused."""
CURVES = 4
"""Curves over log-SNR that an amortised probe's weights are mixed of: Legendre polynomials of degree 0 .. 3."""
DRAWS = 2
"""Timesteps at which an amortised probe sees each training image."""


@dataclass
class SmallProbe:
    """What probes at several t share: images and labels of train and val, the network, and the embeddings made so far.

    `metric` is the probe step's (`choosing_metric`); `classes` is 0 for labels (N, L). A part of the images is always the first
    ones, so that more of them cost only what is new; they were drawn at random.
    """

    model: DiER
    train: tuple[Images, Labels]
    val: tuple[Images, Labels]
    classes: int
    metric: str
    encoded: int = 0
    """Images that the encoder was given, once for each t."""
    probes: int = 0
    _kept: dict[tuple[str, int], Floats] = field(default_factory=dict)

    def value(self, t: int, size: float) -> float:
        """The metric on val at t, with `size` of the images, 0 .. 1."""
        (images, labels), (val_images, val_labels) = self.train, self.val
        n, m = (max(1, round(size * len(x))) for x in (images, val_images))
        x, seen = self._embedded("train", images, t, n), self._embedded("val", val_images, t, m)
        scaler = StandardScaler().fit(x)
        fits, seen = self._fits(scaler.transform(x), labels[:n]), scaler.transform(seen)
        return max(value_of(self.metric, _scores(fit, seen), val_labels[:m]) for fit in fits)

    def amortised(self, timesteps: Sequence[int], seed: int) -> list[float]:
        """The metric on val at each of the timesteps, by one probe whose weights are a smooth function of log-SNR.

        W(t) = sum_k phi_k(log-SNR) W_k is fitted to all training images at once, each at DRAWS random timesteps of those given.
        """
        images, labels = self.train
        places = np.random.default_rng(seed).integers(len(timesteps), size=(DRAWS, len(images)))
        rows = np.concatenate([self._at_random(images, timesteps, drawn) for drawn in places])  # (DRAWS N, D)
        scaler = StandardScaler().fit(rows)
        curves = self._curves(timesteps)
        fits = self._fits(_mixed(scaler.transform(rows), curves[places.reshape(-1)]), np.concatenate([labels] * DRAWS))
        found = np.empty((len(fits), len(timesteps)))
        for place, (t, curve) in enumerate(zip(timesteps, curves, strict=True)):
            x = scaler.transform(self._embedded("val", self.val[0], t, len(self.val[0])))
            mixed = _mixed(x, np.tile(curve, (len(x), 1)))
            found[:, place] = [value_of(self.metric, _scores(fit, mixed), self.val[1]) for fit in fits]
        best: list[float] = found[found.max(axis=1).argmax()].tolist()  # one probe's curve: figures of two do not compare
        return best

    def _curves(self, timesteps: Sequence[int]) -> npt.NDArray[np.float64]:
        known = levels(self.model.config.schedule)
        level = np.array([known[t] for t in timesteps])
        across = 2 * (level - level.min()) / max(float(np.ptp(level)), 1e-9) - 1  # in [-1, 1]
        return np.asarray(np.polynomial.legendre.legvander(across, CURVES - 1))  # (T, CURVES)

    def _at_random(self, images: Images, timesteps: Sequence[int], drawn: npt.NDArray[np.int64]) -> Floats:
        """v of each image at its own timestep, (N, D)."""
        out = np.empty((len(images), self.model.config.embed_dim), np.float32)
        for place, t in enumerate(timesteps):
            here = drawn == place
            if here.any():
                out[here] = self._embed(images[here], t)
        return out

    def _embedded(self, name: str, images: Images, t: int, number: int) -> Floats:
        known = self._kept.get((name, t), np.empty((0, self.model.config.embed_dim), np.float32))
        if len(known) < number:
            known = np.concatenate([known, self._embed(images[len(known) : number], t)])
            self._kept[name, t] = known
        return known[:number]

    def _embed(self, images: Images, t: int) -> Floats:
        self.encoded += len(images)
        return embed(self.model, images, t, device=self.model.alpha_bar.device)

    def _fits(self, x: Floats, labels: Labels) -> list[Ridge]:
        """A probe for each penalty."""
        self.probes += len(PENALTIES)
        wanted = np.eye(self.classes, dtype=np.float32)[labels] if self.classes else labels.astype(np.float32)
        return [Ridge(alpha=penalty * len(x)).fit(x, 2 * wanted - 1) for penalty in PENALTIES]


def _scores(fit: Ridge, x: Floats) -> npt.NDArray[np.float64]:
    return np.asarray(fit.predict(x), np.float64).reshape(len(x), -1)


def _mixed(x: Floats, curves: npt.NDArray[np.float64]) -> Floats:
    """x (N, D) times each of its row's curves (N, K): (N, K D)."""
    return np.asarray(x[:, None, :] * curves[:, :, None], np.float32).reshape(len(x), -1)
