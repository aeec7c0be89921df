"""The charts of the probe: accuracy over t and over log-SNR beside the baselines, and the confusion matrix."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from components.reporting.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, Picture, figure, style, svg
from components.reporting.formatting import percent, representation, short

LOOKS = {"pixels": (ORANGE, "--"), "pca": (RED, "-."), "untrained": (GREEN, "-"), "denoiser": (PURPLE, "-")}
"""Colour and line of each baseline: never told apart by colour alone."""
MOST_NUMBERED = 20
"""Classes up to which a confusion matrix carries its numbers."""


def val_accuracy(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of the probe's curve.csv that the charts show: val accuracy, the best C a timestep and representation."""
    rows = curve[(curve["split"] == "val") & (curve["metric"] == "accuracy")]
    best = rows.sort_values("value", kind="stable").drop_duplicates(["representation", "t"], keep="last")
    return best.sort_values(["representation", "t"], kind="stable")


def over_t(curve: pd.DataFrame, metrics: dict[str, Any]) -> Picture:
    """Probe accuracy over t (left) and over log-SNR (right), with 95 % bands and the test result of what was chosen."""
    rows = val_accuracy(curve)
    with style():
        drawn = figure(10.4, 4.6)
        left, right = drawn.subplots(1, 2, sharey=True)
        for axes, x in ((left, "t"), (right, "log_snr")):
            _baselines(axes, rows, x)
            dier = rows[rows["representation"] == "dier"].sort_values(x)
            axes.fill_between(dier[x], dier["low"], dier["high"], color=BLUE, alpha=0.16, lw=0)
            axes.plot(dier[x], dier["value"], color=BLUE, lw=2.6, marker="o", ms=5, label="DiER embedding")
            _test_point(axes, metrics, metrics[x])
        left.set(title="Over the timestep t", xlabel="timestep t", ylabel="linear-probe accuracy (val)")
        left.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
        right.set(title="Over log-SNR (log of signal power over noise power)", xlabel="log-SNR")
        right.invert_xaxis()
        right.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles, labels = left.get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=4)
        return svg(drawn, _over_t_alt(rows, metrics))


def _baselines(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    blocks = sorted({name for name in rows["representation"] if name.startswith("denoiser")})
    best = max(blocks, key=lambda name: rows[rows["representation"] == name]["value"].max(), default=None)
    for place, name in enumerate(("pixels", "pca", "untrained", *blocks)):
        found = rows[rows["representation"] == name].sort_values(x)
        colour, line = LOOKS["denoiser" if name in blocks else name]
        if found.empty:
            continue
        if found[x].isna().all():
            _level(axes, found.iloc[0], 0.985 - 0.02 * place, {"color": colour, "ls": line}, representation(name))
        elif name in blocks and name != best:
            axes.plot(found[x], found["value"], color=GREY, lw=0.8, alpha=0.7, label=_once(axes, "other denoiser blocks"))
        else:
            axes.fill_between(found[x], found["low"], found["high"], color=colour, alpha=0.10, lw=0)
            marker = "^" if name == "untrained" else "D"
            axes.plot(found[x], found["value"], color=colour, ls=line, lw=1.5, marker=marker, ms=4, label=representation(name))


def _level(axes: Axes, row: pd.Series, across: float, look: dict[str, Any], label: str) -> None:
    """A baseline without a t: a level line, its interval as a bar near the right edge (`across` the axes, 0 to 1)."""
    axes.axhline(row["value"], lw=1.5, label=label, **look)
    reach = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
    bar: dict[str, Any] = {"fmt": "none", "ecolor": look["color"], "elinewidth": 1.5, "capsize": 2.5}
    axes.errorbar([across], [row["value"]], yerr=reach, transform=axes.get_yaxis_transform(), **bar)


def _once(axes: Axes, label: str) -> str:
    """`label` the first time, and a label that legends leave out after that."""
    return "_" if label in axes.get_legend_handles_labels()[1] else label


def _test_point(axes: Axes, metrics: dict[str, Any], x: float) -> None:
    test = metrics["test"]["accuracy"]
    reach = [[test["value"] - test["low"]], [test["high"] - test["value"]]]
    look: dict[str, Any] = {"fmt": "*", "ms": 13, "mfc": "white", "mec": INK, "ecolor": INK, "capsize": 3, "zorder": 5}
    axes.errorbar([x], [test["value"]], yerr=reach, label=f"test, at the chosen t = {metrics['t']}", **look)


def _over_t_alt(rows: pd.DataFrame, metrics: dict[str, Any]) -> str:
    dier = rows[rows["representation"] == "dier"]
    listed = "; ".join(f"t {t:.0f}: {percent(value)}" for t, value in zip(dier["t"], dier["value"], strict=True))
    return f"Validation accuracy of a linear probe on the DiER embedding by timestep: {listed}. {metrics['peak']['sentence']}"


def confusion(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], class_names: list[str]) -> Picture:
    """The confusion matrix of (N,) test labels and predictions: rows are the truth, each row sums to 100 %."""
    from sklearn.metrics import confusion_matrix

    k = len(class_names)
    counts = confusion_matrix(labels, predicted, labels=list(range(k)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [short(name) for name in class_names]
    with style():
        side = min(max(0.5 * k + 1.6, 3.4), 8.0)
        drawn = figure(side + 0.6, side)
        axes = drawn.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="true")
        axes.tick_params(length=0)
        if k <= MOST_NUMBERED:
            for row, column in np.ndindex(k, k):
                if counts[row, column]:
                    colour = "white" if shares[row, column] > 0.5 else INK
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
        if k <= 2 * MOST_NUMBERED:
            axes.set_xticks(range(k), names, rotation=90 if max(map(len, names)) > 3 else 0)
            axes.set_yticks(range(k), names)
        return svg(drawn, _confusion_alt(counts, class_names))


def _confusion_alt(counts: npt.NDArray[np.int64], class_names: list[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    right = f"Confusion matrix: {int(np.trace(counts))} of {int(counts.sum())} test images on the diagonal, that is, right."
    if not wrong.any():
        return right
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    times = int(wrong[row, column])
    return f"{right} The most frequent mistake: {class_names[row]} taken for {class_names[column]}, {times} times."
