"""How well each class, or label, is recognised on test, with intervals: the rows of a model card."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from components.common.formatting import with_interval
from components.registry.gate import RESAMPLES, SEED

Bools = npt.NDArray[np.bool_]


def labels_and_guesses(predictions: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The probe's predictions.parquet: each test image's label, and what DiER's probe said, (N,) or of several labels (N, L).

    Raises OSError, ValueError or KeyError where it is none.
    """
    table = pq.read_table(predictions, columns=["label", "dier"])
    return np.array(table["label"].to_pylist()), np.array(table["dier"].to_pylist())


def class_figures(predictions: Path, names: list[str], copies: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the probe's predictions.parquet, shares with 95 % bootstrap intervals (the gate's).

    Of single labels the recall of each class. Of several an image, where naming none is mostly right, the sensitivity and
    specificity of each label.
    """
    label, guess = labels_and_guesses(predictions)
    if label.ndim == 2:
        header = ["label", "images with it", "sensitivity", "specificity"]
        rows = []
        for name, truth, said in zip(names, label.T == 1, guess.T == 1, strict=True):
            rows.append([name, str(truth.sum()), _share(truth, said, copies), _share(~truth, ~said, copies)])
        return header, rows
    found = [(name, label == c) for c, name in enumerate(names)]
    return ["class", "test images", "recall"], [[name, str(of.sum()), _share(of, label == guess, copies)] for name, of in found]


def _share(of: Bools, right: Bools, copies: int) -> str:
    """Of the images `of` the share that is right; copies of an original stand together and have its label."""
    if not of.any():
        return "no test image"
    from components.probing.metrics import Bootstrap  # brings scikit-learn, which a version that stands need not wait for

    values = right[of].astype(np.float64)
    return with_interval(Bootstrap(len(values), RESAMPLES, SEED, copies).mean(values).row())
