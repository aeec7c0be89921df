"""Numbers and names as a reader meets them on the page."""

from collections.abc import Mapping
from typing import Any, cast

Estimate = Mapping[str, float]
"""`{value, low, high}`: a figure and its 95 % interval."""

SOUGHT = {"eps": "the noise", "v": "a mix of the noise and the clean image", "x0": "the clean image"}
"""What the denoiser predicts, by `model.prediction`."""
THIN = "\u202f"
MINUS = "\u2212"


def percent(value: float) -> str:
    """A share in percent: 0.9551 is 95.5 %."""
    return f"{100 * value:.1f}{THIN}%"


def with_interval(estimate: Estimate) -> str:
    """A share and its interval: 95.5 % (93.5-97.3)."""
    return f"{percent(estimate['value'])} ({100 * estimate['low']:.1f}\u2013{100 * estimate['high']:.1f})"


def measure(estimate: Mapping[str, float | None], name: str) -> str:
    """A figure and its interval in its usual unit: AUC as a number up to 1, all else in percent; a dash where there is none."""
    if any(value is None for value in estimate.values()):
        return number(None)
    if name == "auc":
        return f"{estimate['value']:.3f} ({estimate['low']:.3f}\u2013{estimate['high']:.3f})"
    return with_interval(cast(Estimate, estimate))


def decimals(value: float) -> str:
    """A number with two decimals and a proper minus."""
    return f"{value:.2f}".replace("-", MINUS)


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    rounded = round(100 * value, 1)
    return f"{'+' if rounded > 0 else MINUS if rounded < 0 else ''}{abs(rounded):.1f}"


def points_with_interval(estimate: Estimate) -> str:
    """A difference and its interval: +1.0 points (+0.2 to +1.9)."""
    return f"{points(estimate['value'])} points ({points(estimate['low'])} to {points(estimate['high'])})"


def number(value: Any) -> str:
    """Any cell of a table."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", THIN)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {number(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)


def representation(name: str) -> str:
    """A representation in plain words."""
    plain = {"dier": "DiER embedding", "pixels": "raw pixels", "pca": "PCA of the pixels", "untrained": "untrained encoder"}
    if name.startswith("denoiser"):
        block = name.removeprefix("denoiser").removeprefix("_block")
        return f"denoiser block {block}" if block else "denoiser block"
    return plain.get(name, name)


def comparison(difference: Estimate) -> tuple[str, str]:
    """(sign, words) for DiER minus a baseline: a claim only where the whole interval lies on one side of zero."""
    if difference["low"] > 0:
        return "better", "beaten"
    if difference["high"] < 0:
        return "worse", "ahead of DiER"
    return "even", "no clear difference"


def short(name: str, length: int = 18) -> str:
    """A class name that fits beside a figure."""
    return name if len(name) <= length else name[: length - 1] + "\u2026"
