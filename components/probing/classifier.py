"""One linear probe: standardise, then logistic regression; C chosen on val.

The protocol of linear-probe accuracy: the representation is frozen, and only a linear map is fitted. scikit-learn does the fitting.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[Any]

ROWS = 4096
"""Rows that are float64 at a time."""
COLUMNS = 64
"""Columns that are standardised at a time: scikit-learn makes several copies of what it is given."""
SMALL = 8_000_000
"""Numbers in x up to which a fit uses one thread: its products are so short that threads wait for each other more than they work.
Beside another process a probe of 3,000 x 256 took 25 times as long with two as with one."""


@dataclass(frozen=True)
class Linear:
    """logits = x @ weight.T + bias, standardisation folded in. weight (K, D), bias (K,)."""

    weight: Floats
    bias: Floats
    multi_label: bool
    converged: bool

    def scores(self, x: Floats) -> Array:
        """Log-odds (N, K) float64 of each class against the rest, or of each of several labels: expit of them is the probability.

        They rank images as probabilities do, but a sure one is not rounded to 1, where all of them would tie.
        """
        parts = np.array_split(x, len(x) // ROWS + 1)
        logits: Array = np.concatenate([part.astype(np.float64) @ self.weight.T.astype(np.float64) for part in parts]) + self.bias
        return logits if self.multi_label else _against_the_rest(logits)


def _against_the_rest(logits: Array) -> Array:
    """log p - log(1 - p) of softmax probabilities p, exact also where p rounds to 1."""
    top = logits.argmax(axis=1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, top, -np.inf, axis=1)
    log_p = log_softmax(logits, axis=1)
    with np.errstate(divide="ignore"):
        odds = log_p - np.log1p(-np.exp(log_p))  # fine up to p = 1/2: of all classes but the top one
    np.put_along_axis(odds, top, np.take_along_axis(logits, top, 1) - logsumexp(others, axis=1, keepdims=True), axis=1)
    return np.asarray(odds, np.float64)


def fit_grid(
    x: Floats,
    y: Labels,
    classes: int,
    c_grid: Sequence[float],
    max_iter: int,
    *,
    standardise: bool = True,
    overwrite: bool = False,
) -> Iterator[tuple[float, Linear]]:
    """Fit one probe a C, the strongest penalty first, each starting from the last. x (N, D), y (N,) or (N, L).

    With `overwrite` x is standardised where it stands, and there is no second copy of it.
    """
    standard = x if overwrite else x.copy()
    mean, scale = _standardise(standard) if standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    columns = [y[:, i] for i in range(y.shape[1])] if y.ndim == 2 else [y]
    fits = [LogisticRegression(C=1.0, max_iter=max_iter, warm_start=True) for _ in columns]
    for c in sorted(c_grid):
        with threadpool_limits(1 if x.size <= SMALL else None), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            parts = [_fit(fit, c, standard, column, classes) for fit, column in zip(fits, columns, strict=True)]
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        if y.ndim == 2:  # of the two classes of a label only "yes" is a logit of its own
            weight, bias = (np.stack([part[i][1] - part[i][0] for part in parts]) for i in (0, 1))
        else:
            weight, bias = parts[0]
        if standardise:
            weight = weight / scale
            bias = bias - weight @ mean
        yield c, Linear(weight.astype(np.float32), bias.astype(np.float32), y.ndim == 2, converged)


def _standardise(x: Floats) -> tuple[Array, Array]:
    """Standardise x (N, D) in place; its columns' means and scales, (D,) each."""
    scalers = []
    for start in range(0, x.shape[1], COLUMNS):
        part = x[:, start : start + COLUMNS]
        scalers.append(StandardScaler(copy=False).fit(part))
        part[:] = scalers[-1].transform(part)
    return np.concatenate([scaler.mean_ for scaler in scalers]), np.concatenate([scaler.scale_ for scaler in scalers])


def _fit(fit: LogisticRegression, c: float, x: Floats, y: Labels, classes: int) -> tuple[Array, Array]:
    """Weights (K, D) and biases (K,) in the order of the labels; a class that train lacks is never predicted."""
    k = 2 if classes == 0 else classes
    present = np.unique(y)
    weight, bias = np.zeros((k, x.shape[1])), np.full(k, -1e4)
    if len(present) == 1:  # nothing to tell apart
        bias[present[0]] = 0.0
        return weight, bias
    fit.set_params(C=c)
    fit.fit(x, y)
    if len(present) == 2:  # scikit-learn keeps one row for two classes
        weight[present[1]], bias[present] = fit.coef_[0], [0.0, fit.intercept_[0]]
    else:
        weight[fit.classes_], bias[fit.classes_] = fit.coef_, fit.intercept_
    return weight, bias
