"""Put the page together: what each section shows, handed to the template."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from components.common.formatting import METRIC_NAMES, at_t, measure, percent
from components.common.settings import Section
from components.reporting import accuracy, curves, formatting, gallery, maps, tables, unlabelled
from components.reporting.figures import Picture, tile
from components.reporting.inputs import Inputs
from components.reporting.projection import one_thread
from data.format import SPLITS

TEMPLATE = "report.html.j2"
PLOTS: dict[str, list[Callable[[Inputs], Picture | None]]] = {
    "accuracy": [lambda inputs: (accuracy.accuracy_over_t if inputs.labelled else unlabelled.scores_over_t)(inputs)],
    "map": [maps.embedding_map],
    "mistakes": [accuracy.confusion],
    "denoising": [curves.gap],
    "training": [curves.training],
}
"""The charts of each section of the page, in order; one that gives None is left out."""


def page(inputs: Inputs, sections: Mapping[str, Section]) -> str:
    """The whole report as HTML text; `sections` are the settings by section name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        at_t=at_t,
        number=formatting.number,
        decimals=formatting.decimals,
        percent=percent,
        measure=measure,
    )
    template = environment.from_string(files("components.reporting").joinpath(TEMPLATE).read_text("utf-8"))
    with one_thread():
        plots = {section: [drawn for plot in drawing if (drawn := plot(inputs))] for section, drawing in PLOTS.items()}
        return template.render(
            **(_probe(inputs) if inputs.labelled else _unlabelled(inputs)),
            **_model(inputs),
            **_data(inputs),
            settings=tables.settings(sections),
            plots=plots,
            metric_names=METRIC_NAMES,
            labelled=inputs.labelled,
            neighbours=gallery.neighbours(inputs),
        )


def _probe(inputs: Inputs) -> dict[str, Any]:
    """The answer and the curves."""
    metric = inputs.metrics["chosen_by"]
    curve = accuracy.val_curve(inputs.curve, metric)
    return {
        "metrics": inputs.metrics,
        "baselines": tables.baselines(inputs.metrics),
        "val_rows": curve.query("representation == 'dier'").replace({np.nan: None}).to_dict("records"),
        "label_results": tables.label_results(inputs) if inputs.dataset.info.multi_label else [],
    }


def _unlabelled(inputs: Inputs) -> dict[str, Any]:
    """The same where labels tell nothing apart."""
    metrics = inputs.metrics
    return {"metrics": metrics, "score_rows": unlabelled.score_rows(inputs.curve), "kept_rows": unlabelled.kept_rows(metrics)}


def _model(inputs: Inputs) -> dict[str, Any]:
    """Training, and what the denoiser does with v_t."""
    timesteps, denoised = gallery.denoised(inputs)
    return {"summary": inputs.summary, "sought": inputs.sought, "denoise_at": timesteps, "denoised": denoised}


def _data(inputs: Inputs) -> dict[str, Any]:
    """The images, what validation found, and where everything came from."""
    verdict = inputs.artifacts["verdict"].json("verdict.json")
    return {
        "info": inputs.dataset.info,
        "splits": [name for name in SPLITS if name in inputs.dataset.info.counts],
        "classes": gallery.classes(inputs),
        "verdict": verdict,
        "pairs": [_pair(inputs, pair) for pair in verdict["pairs"][: tables.WORST_PAIRS]],
        "provenance": tables.provenance(inputs),
    }


def _pair(inputs: Inputs, pair: Mapping[str, Any]) -> dict[str, Any]:
    one = inputs.dataset.split(pair["split"]).images[pair["index"]]
    other = inputs.dataset.split(pair["other_split"]).images[pair["other_index"]]
    return {**pair, "pictures": (tile(one), tile(other))}
