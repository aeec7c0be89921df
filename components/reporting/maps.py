"""The 2-D maps of the embeddings at a low, the chosen and a high timestep."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from components.embedding import store
from components.reporting.figures import INK, Picture, figure, style, svg
from components.reporting.formatting import short
from components.reporting.inputs import Inputs
from components.reporting.projection import Floats, flat_map, sample

# Paul Tol's "muted", ten colours told apart with any common colour blindness; the marker changes each time they run out.
MUTED = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#777777")
MARKERS = "os^Dv<>P"
MOST_POINTS = 800
FEWEST_POINTS = 8
MOST_NAMED = 20


def map_timesteps(inputs: Inputs) -> list[int]:
    """The lowest, the chosen and the highest exported timestep; where the chosen one is an end, one from the middle as well."""
    exported = sorted(inputs.artifacts["embeddings"].json("embeddings.json")["timesteps"])
    mapped = {exported[0], inputs.t, exported[-1]}
    return sorted(mapped if len(mapped) == 3 else mapped | {exported[len(exported) // 2]})


def embedding_map(inputs: Inputs) -> Picture | None:
    """t-SNE maps of val embeddings, or None where val was not exported or has too few images."""
    timesteps, count = map_timesteps(inputs), inputs.dataset.info.counts.get("val", 0)
    if count < FEWEST_POINTS or not all(inputs.embeddings("val", t) for t in timesteps):
        return None
    chosen = sample(count, MOST_POINTS)
    labels = np.asarray(inputs.dataset.split("val").labels[chosen])
    maps = {t: flat_map(store.read(inputs.artifacts["embeddings"], "val", t, chosen)) for t in timesteps}
    names = inputs.dataset.info.class_names
    if inputs.dataset.info.multi_label:
        labels = np.minimum(labels.sum(axis=1), 3).astype(np.int64)
        names = ["no label", "1 label", "2 labels", "3 or more"]
    return _draw(maps, labels, names, inputs.t, named=inputs.labelled and not inputs.dataset.info.multi_label)


def _draw(maps: dict[int, Floats], labels: npt.NDArray[np.int64], names: list[str], chosen: int, named: bool) -> Picture:
    """The maps, coloured by label; of one label alone without a legend, and nothing is said of colour."""
    with style():
        drawn = figure(10.4, 3.9)
        panels: Any = drawn.subplots(1, len(maps), squeeze=False)[0]
        for axes, (t, places) in zip(panels, maps.items(), strict=True):
            _panel(axes, places, labels, names, named and len(names) <= MOST_NAMED)
            axes.set_title(f"t = {t}" + (" (chosen)" if t == chosen else ""))
        handles, legend = panels[0].get_legend_handles_labels()
        if 1 < len(names) <= MOST_NAMED:
            drawn.legend(handles, legend, loc="outside lower center", ncols=min(len(names), 10), markerscale=1.6, handletextpad=0.1)
        alt = (
            f"Maps of {len(labels)} validation images at t = {', '.join(map(str, maps))}: each dot is an image, placed near images "
            f"with similar embeddings{' and coloured by its true class' if len(names) > 1 else ''}."
        )
        colours = (
            "Colour and name tell the true class, which neither the encoder nor the map has seen."
            if named
            else "Colour tells how many labels an image carries."
            if len(names) > 1
            else "The images have no labels to colour them by."
        )
        caption = (
            f"Each dot is a validation image; images with similar embeddings lie close together (t-SNE, at most {MOST_POINTS} "
            f"images). {colours} Tight groups{' of one colour' if len(names) > 1 else ''} mean that the embedding sorts images by "
            "content on its own. Only closeness counts: directions, and distances between far-away groups, mean nothing."
        )
        return svg(drawn, alt, caption)


def _panel(axes: Axes, places: Floats, labels: npt.NDArray[np.int64], names: list[str], named: bool) -> None:
    for label in range(len(names)):
        here = places[labels == label]
        marker = MARKERS[label // len(MUTED) % len(MARKERS)]
        options: dict[str, Any] = {"s": 15, "lw": 0, "alpha": 0.85, "rasterized": True}
        axes.scatter(here[:, 0], here[:, 1], color=MUTED[label % len(MUTED)], marker=marker, label=short(names[label]), **options)
        if len(here) and named:
            x, y = here[_central(here)]
            halo = [withStroke(linewidth=2.5, foreground="white")]
            font: dict[str, Any] = {"color": INK, "fontsize": 8, "weight": "bold", "path_effects": halo}
            axes.text(x, y, short(names[label], 12), ha="center", va="center", **font)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.margins(0.03)


def _central(places: Floats) -> int:
    """The point nearest to the median: it lies in the class's main group, where a mean may lie between groups."""
    return int(np.abs(places - np.median(places, axis=0)).sum(axis=1).argmin())
