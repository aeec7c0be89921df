"""Numbers and names in the page's tables; shares and differences are written by `components/common/formatting.py`."""

from collections.abc import Mapping
from typing import Any

from components.common.formatting import NONE, Figures

THIN = "\u202f"
MINUS = "\u2212"


def decimals(value: float) -> str:
    """A number with two decimals and a proper minus."""
    return f"{value:.2f}".replace("-", MINUS)


def number(value: Any) -> str:
    """Any cell of a table."""
    if value is None:
        return NONE
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


def comparison(difference: Figures) -> tuple[str, str]:
    """(sign, verdict) for DiER minus a baseline: a claim only where the whole interval lies on one side of zero."""
    if (difference["low"] or 0) > 0:
        return "better", "beaten"
    if (difference["high"] or 0) < 0:
        return "worse", "ahead of DiER"
    return "even", "no clear difference"


def short(name: str, length: int = 18) -> str:
    """A class name that fits beside a figure."""
    return name if len(name) <= length else name[: length - 1] + "\u2026"
