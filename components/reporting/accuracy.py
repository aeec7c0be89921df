"""The charts of the probe: accuracy over t and over log-SNR beside the baselines, and the confusion matrix."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from components.common.formatting import METRIC_NAMES, at_t, measure
from components.probing.baselines import BASELINES, REDUCED, SIDE_BY_SIDE, baseline_of, label
from components.reporting.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SKY, YELLOW, Picture, figure, style, svg
from components.reporting.formatting import short
from components.reporting.inputs import Inputs

LINES = ((ORANGE, "--", "s"), (RED, "-.", "v"), (GREEN, "-", "^"), (PURPLE, "-", "D"), (SKY, ":", "P"), (YELLOW, "--", "X"))
"""Colour, line and marker of the baselines in their order: never told apart by colour alone."""
MOST_NUMBERED = 20
"""Classes up to which a confusion matrix carries its numbers."""
CAPTION = (
    "How well a linear classifier on frozen features does on validation images. The thick blue line is the DiER embedding at each "
    "t: where it is highest, the embedding says most about the class. The other lines are the baselines it has to beat. Shaded "
    "bands, and the bars at the right edge, are 95 % intervals: where they overlap widely, the difference may be chance. The star "
    "is the only figure from test images, at the t chosen on validation. The right panel shows the same against log-SNR, which "
    "measures noise alike for every noise schedule; noise grows to the right in both."
)


def val_curve(curve: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of the probe's curve.csv that the charts show: a metric on val, by representation and timestep."""
    rows = curve[(curve["split"] == "val") & (curve["metric"] == metric)]
    return rows.sort_values(["representation", "t"], kind="stable")


def accuracy_over_t(inputs: Inputs) -> Picture:
    """The answer's chart, for the page."""
    return over_t(inputs.curve, inputs.metrics)


def over_t(curve: pd.DataFrame, metrics: dict[str, Any]) -> Picture:
    """The metric that chose t, over t (left) and over log-SNR (right), with 95 % bands and the test result of what was chosen."""
    metric = metrics["chosen_by"]
    rows = val_curve(curve, metric)
    with style():
        drawn = figure(10.4, 4.6)
        left, right = drawn.subplots(1, 2, sharey=True)
        for axes, x in ((left, "t"), (right, "log_snr")):
            _baselines(axes, rows, x)
            dier = rows[rows["representation"] == "dier"].sort_values(x)
            axes.fill_between(dier[x], dier["low"], dier["high"], color=BLUE, alpha=0.16, lw=0)
            axes.plot(dier[x], dier["value"], color=BLUE, lw=2.6, marker="o", ms=5, label="DiER embedding")
            for across, line, name in ((0.965, "-", SIDE_BY_SIDE), (0.945, ":", REDUCED)):
                for _, row in rows[rows["representation"] == name].iterrows():
                    _level(axes, row, across, {"color": BLUE, "ls": line}, label(name))
            _test_point(axes, metrics, metrics[x])
        left.set(title="Over the timestep t", xlabel="timestep t", ylabel=f"linear-probe {METRIC_NAMES[metric]} (val)")
        if metric != "auc":
            left.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
        right.set(title="Over log-SNR (log of signal power over noise power)", xlabel="log-SNR")
        right.invert_xaxis()
        right.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles, labels = left.get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=3)
        return svg(drawn, _over_t_alt(rows, metrics), CAPTION)


def _baselines(axes: Axes, rows: pd.DataFrame, x: str) -> None:
    """A line for each baseline; of one that is probed block by block the best block's, the others thin and grey."""
    highest = rows.groupby("representation")["value"].max()
    for place, baseline in enumerate(BASELINES):
        colour, line, marker = LINES[place % len(LINES)]
        blocks = [name for name in highest.index if baseline_of(name) == baseline]
        best = max(blocks, key=lambda name: highest[name], default=None)
        for name in blocks:
            found = rows[rows["representation"] == name].sort_values(x)
            if found[x].isna().all():
                _level(axes, found.iloc[0], 0.985 - 0.02 * place, {"color": colour, "ls": line}, label(name))
            elif name != best:
                axes.plot(found[x], found["value"], color=GREY, lw=0.8, alpha=0.7, label=_once(axes, "the other blocks"))
            else:
                axes.fill_between(found[x], found["low"], found["high"], color=colour, alpha=0.10, lw=0)
                axes.plot(found[x], found["value"], color=colour, ls=line, lw=1.5, marker=marker, ms=4, label=label(name))


def _level(axes: Axes, row: pd.Series, across: float, options: dict[str, Any], name: str) -> None:
    """A baseline without a t: a level line, its interval as a bar near the right edge (`across` the axes, 0 to 1)."""
    axes.axhline(row["value"], lw=1.5, label=name, **options)
    reach = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
    bar: dict[str, Any] = {"fmt": "none", "ecolor": options["color"], "elinewidth": 1.5, "capsize": 2.5}
    axes.errorbar([across], [row["value"]], yerr=reach, transform=axes.get_yaxis_transform(), **bar)


def _once(axes: Axes, name: str) -> str:
    """`name` the first time, and a label that legends leave out after that."""
    return "_" if name in axes.get_legend_handles_labels()[1] else name


def _test_point(axes: Axes, metrics: dict[str, Any], x: float) -> None:
    test = metrics["test"][metrics["chosen_by"]]
    if test["value"] is None:
        return
    reach = [[test["value"] - test["low"]], [test["high"] - test["value"]]]
    options: dict[str, Any] = {"fmt": "*", "ms": 13, "mfc": "white", "mec": INK, "ecolor": INK, "capsize": 3, "zorder": 5}
    axes.errorbar([x], [test["value"]], yerr=reach, label=f"test, at the chosen {at_t(metrics)}", **options)


def _over_t_alt(rows: pd.DataFrame, metrics: dict[str, Any]) -> str:
    metric = metrics["chosen_by"]
    dier = rows[rows["representation"] == "dier"]
    listed = "; ".join(
        f"t {t:.0f}: {measure({'value': value, 'low': low, 'high': high}, metric)}"
        for t, value, low, high in zip(dier["t"], dier["value"], dier["low"], dier["high"], strict=True)
    )
    return (
        f"Validation {METRIC_NAMES[metric]} of a linear probe on the DiER embedding by timestep: {listed}. "
        f"{metrics['peak']['sentence']}"
    )


def confusion_counts(probe: Path, classes: int) -> npt.NDArray[np.int64] | None:
    """How often each class (row) was taken for each (column) on test, (K, K); None in a probe artifact of several labels."""
    found = pq.read_table(probe / "predictions.parquet", columns=["label", "dier"]).to_pandas()
    if found["label"].dtype == object:
        return None
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (found["label"].to_numpy(), found["dier"].to_numpy()), 1)
    return counts


def confusion(inputs: Inputs) -> Picture | None:
    """The confusion matrix on test: rows are the truth, each row sums to 100 %. None where images carry several labels, or none."""
    if not inputs.labelled:
        return None
    class_names = inputs.dataset.info.class_names
    k = len(class_names)
    counts = confusion_counts(inputs.artifacts["probe"].path, k)
    if counts is None:
        return None
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
        caption = (
            f"Test images by true class (row) and predicted class (column) at {at_t(inputs.metrics)}, with counts. The darker a "
            "field, the larger its share of its row. The diagonal is right; every other field is a mistake, and says what was "
            "taken for what."
        )
        return svg(drawn, _confusion_alt(counts, class_names), caption)


def _confusion_alt(counts: npt.NDArray[np.int64], class_names: list[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    right = f"Confusion matrix: {int(np.trace(counts))} of {int(counts.sum())} test images on the diagonal, that is, right."
    if not wrong.any():
        return right
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    times = int(wrong[row, column])
    return f"{right} The most frequent mistake: {class_names[row]} taken for {class_names[column]}, {times} times."
