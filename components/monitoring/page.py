"""What `dier monitor` found as one HTML page that opens without a network, the most unlike images in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from components.monitoring.two_sample import Neighbours
from components.reporting import figures
from data.named_images import Origin

if TYPE_CHECKING:
    from components.monitoring.monitor import Unlike

BINS = 40


def name(origin: Origin) -> str:
    """What a person calls an image: its file, and where in it."""
    return origin.file if origin.array is None else f"{origin.file}, {origin.array}[{origin.row}]"


def page(
    found: dict[str, Any], shown: str, unlike: Sequence["Unlike"], distances: npt.NDArray[np.float32], neighbours: Neighbours
) -> str:
    """The page; `found` is monitor.json, `shown` what the model is called."""
    environment = Environment(
        loader=PackageLoader("components.monitoring", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tiles = [
        {"picture": figures.tile(one.image, name(one.origin)), "name": name(one.origin), "times": one.distance / neighbours.limit}
        for one in unlike
    ]
    return environment.get_template("page.html.j2").render(
        found=found, shown=shown, tiles=tiles, histogram=_histogram(distances, neighbours), beyond=found["unlike"]["share"]
    )


def _histogram(distances: npt.NDArray[np.float32], neighbours: Neighbours) -> figures.Picture:
    edges = np.linspace(0, max(float(distances.max()), neighbours.limit * 1.2), BINS + 1)
    with figures.style():
        drawn = figures.figure(7.2, 2.6)
        axes = drawn.subplots()
        for values, label, colour in ((neighbours.own, "trained on", figures.GREY), (distances, "new", figures.BLUE)):
            axes.stairs(np.histogram(values, edges)[0] / len(values), edges, fill=True, alpha=0.5, color=colour, label=label)
        axes.axvline(neighbours.limit, color=figures.RED, linewidth=1.2)
        axes.set_xlabel("distance to the fifth nearest training embedding")
        axes.set_ylabel("share of images")
        axes.legend()
        return figures.svg(
            drawn,
            "Histograms of distances",
            "Right of the line lies one in a hundred of the training images from the rest of them.",
        )
