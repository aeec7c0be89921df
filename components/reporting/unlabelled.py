"""What the page shows of images whose labels tell nothing apart: the label-free scores over t, and their tables."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from components.common.formatting import at_t, percent, with_interval
from components.probing.baselines import label
from components.reporting.figures import BLUE, GREY, INK, RED, Picture, figure, plain_numbers, style, svg
from components.reporting.formatting import number
from components.reporting.inputs import Inputs

PANELS = {
    "score": "Label-free score",
    "kept": "Neighbours kept under mild views",
    "effective_rank": "Effective rank",
    "gap_nats": "What v_t tells the denoiser, nats",
}
"""The panels by the metric in curve.csv, and their titles."""
CAPTION = (
    "Without labels nobody can say how well classes are told apart. The score chose t (dotted "
    "line): it compares the timesteps of one model, and no two models. Neighbours kept: of the training images nearest to an "
    "image, the share that stays when the image is shifted, turned and brightened a little (band: 95 % interval); an embedding of "
    "content should not mind. Effective rank: how many directions the embeddings vary in; near 1 the encoder has collapsed. The "
    "last panel: how much better the denoiser guesses for having the embedding, a unit of log-SNR; where it is 0, training teaches "
    "the encoder nothing."
)


@dataclass(frozen=True)
class KeptRow:
    """How many of its neighbours a test image keeps by one representation."""

    name: str
    t: str
    kept: str


def over_t(curve: pd.DataFrame, metrics: dict[str, Any]) -> Picture:
    """The label-free scores over t, a panel each, from the probe's curve.csv and metrics.json."""
    with style():
        drawn = figure(10.4, 4.6)
        panels: Any = drawn.subplots(2, 2, sharex=True).ravel()
        for axes, (metric, title) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, curve, metric, metrics["t"])
            axes.set_title(title)
        for axes in panels[2:]:
            axes.set_xlabel("timestep t (more noise to the right)")
        return svg(drawn, _alt(curve, metrics), CAPTION)


def scores_over_t(inputs: Inputs) -> Picture:
    """The same for the page."""
    return over_t(inputs.curve, inputs.metrics)


def _panel(axes: Axes, curve: pd.DataFrame, metric: str, chosen: int) -> None:
    rows = _before_test(curve, metric)
    axes.axvline(chosen, color=GREY, ls=":", lw=1.2)
    if rows["low"].notna().any():
        axes.fill_between(rows["t"], rows["low"], rows["high"], color=BLUE, alpha=0.16, lw=0)
    axes.plot(rows["t"], rows["value"], color=BLUE, marker="o", ms=4)
    here = rows[rows["t"] == chosen]
    axes.plot(here["t"], here["value"], color=RED, marker="o", ms=8, mfc="white", mec=INK, ls="none")
    if metric == "gap_nats":  # of several powers of ten, and below zero where v_t misleads
        axes.set_yscale("symlog", linthresh=1)
    plain_numbers(axes)


def _before_test(curve: pd.DataFrame, metric: str) -> pd.DataFrame:
    """DiER's rows of a metric over t: of val, or what embed chose t by."""
    rows = curve[(curve["split"] != "test") & (curve["metric"] == metric) & (curve["representation"] == "dier")]
    return rows.sort_values("t")


def _alt(curve: pd.DataFrame, metrics: dict[str, Any]) -> str:
    scores = _before_test(curve, "score")
    listed = "; ".join(f"t {t:.0f}: {value:.2f}" for t, value in zip(scores["t"], scores["value"], strict=True))
    return f"Label-free scores by timestep: {listed}. {metrics['peak']['sentence']}"


def score_rows(curve: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a timestep: t, log-SNR, and each of PANELS as text."""
    found = {metric: _before_test(curve, metric).set_index("t")["value"] for metric in PANELS}
    levels = _before_test(curve, "score").set_index("t")["log_snr"]
    return [
        {"t": int(t), "log_snr": float(levels[t])}
        | {metric: _text(metric, float(values.get(t, float("nan")))) for metric, values in found.items()}
        for t in levels.index
    ]


def _text(metric: str, value: float) -> str:
    if math.isnan(value):
        return number(None)
    return percent(value) if metric == "kept" else number(value)


def kept_rows(metrics: dict[str, Any]) -> list[KeptRow]:
    """DiER, and what was measured beside it."""
    rows = [KeptRow("DiER embedding", at_t(metrics), with_interval(metrics["test"]["kept"]))]
    beside = metrics["baselines"].items()
    return rows + [KeptRow(label(name), number(None), with_interval(found["test"]["kept"])) for name, found in beside]
