"""Figures and images as data URIs: the same input gives the same bytes, and nothing is fetched."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

Pixels = npt.NDArray[np.uint8]
SMALLEST_SIDE, LARGEST_SIDE = 40, 64
"""Pixels a side of an image on the page. Larger ones are scaled down; smaller ones up by whole numbers, to stay sharp in print."""

# Okabe and Ito's palette: told apart with any common colour blindness, and in grey print by lightness.
INK, GREY, BLUE, SKY, GREEN, ORANGE, RED, PURPLE, YELLOW = (
    "#1f2430", "#8a8f98", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#f0e442",
)  # fmt: skip

STYLE: dict[str, Any] = {
    "svg.hashsalt": "dier",
    "svg.fonttype": "path",
    "text.parse_math": False,  # class names come from data: a $ in one is a $
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b9bec7",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#5b616c",
    "ytick.color": "#5b616c",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "figure.dpi": 100,
    "savefig.dpi": 170,  # of what is rasterised inside
}


@dataclass(frozen=True)
class Picture:
    """One image of the page: a data URI, what it shows, in words, and for a chart how to read it."""

    src: str
    alt: str
    caption: str = ""


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style, whatever the reader's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        cast(Any, matplotlib.rcParams).update(STYLE)
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; it belongs to no window and no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def plain_numbers(axes: Axes, *, log: bool = False) -> None:
    """Numbers beside the y axis as 0.002, never as powers of ten; `log` makes the axis logarithmic."""
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,), numticks=9))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def svg(drawn: Figure, alt: str, caption: str) -> Picture:
    """A finished figure as an SVG without a date."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return Picture(_uri("image/svg+xml", buffer.getvalue()), alt, caption)


def tile(image: Pixels, alt: str = "") -> Picture:
    """One image (H, W, C) uint8, C 1 or 3, as a PNG of between `SMALLEST_SIDE` and `LARGEST_SIDE` pixels a side or so."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
    side = max(picture.size)
    if side > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    elif side < SMALLEST_SIDE:
        times = -(-SMALLEST_SIDE // side)
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return Picture(_uri("image/png", buffer.getvalue()), alt)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
