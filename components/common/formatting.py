"""Figures as people read them, in sentences, on the page and on the terminal: shares in percent, differences in points."""

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, float | None]
"""`{value, low, high}`: an estimate and its 95 % interval; null where there is nothing to compute."""

METRIC_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}
"""The probe's metrics, and what people call them."""
NONE = "\u2013"


def at_t(metrics: Mapping[str, Any]) -> str:
    """Where DiER's embedding is taken, of metrics.json: t = 300, or t = 100, 300 and 600 side by side."""
    timesteps = metrics.get("timesteps", [metrics["t"]])
    if len(timesteps) == 1:
        return f"t = {timesteps[0]}"
    return f"t = {', '.join(map(str, timesteps[:-1]))} and {timesteps[-1]} side by side"


def percent(value: float) -> str:
    """A share: 0.95823 is 95.82 %."""
    return f"{100 * value:.2f} %"


def with_interval(figures: Figures) -> str:
    """A share and its 95 % interval: 95.82 % [93.59, 97.77]."""
    return measure(figures, "accuracy")


def points_with_interval(figures: Figures) -> str:
    """A difference of shares in percentage points and its 95 % interval: +1.39 [-1.11, +3.62]."""
    return _spread(figures, 100, "+.2f")


def measure(figures: Figures, metric: str) -> str:
    """A metric and its 95 % interval in its usual unit: AUC as a number up to 1, the others in percent."""
    return _spread(figures, 1, ".4f") if metric == "auc" else _spread(figures, 100, ".2f", " %")


def gain(figures: Figures, metric: str) -> str:
    """A difference of a metric and its 95 % interval: +1.39 points [-1.11, +3.62], or +0.0139 [-0.0111, +0.0362] for AUC."""
    return _spread(figures, 1, "+.4f") if metric == "auc" else _spread(figures, 100, "+.2f", " points")


def _spread(figures: Figures, scale: float, style: str, unit: str = "") -> str:
    value, low, high = figures["value"], figures["low"], figures["high"]
    if value is None or low is None or high is None:
        return NONE
    digits = int(style[-2])
    shown = [f"{round(scale * number, digits) + 0.0:{style}}" for number in (value, low, high)]  # + 0.0: never -0.00
    return f"{shown[0]}{unit} [{shown[1]}, {shown[2]}]"
