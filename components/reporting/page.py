"""Put the page together: what each section shows, handed to the template."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined

from components.common.settings import Section
from components.reporting import accuracy, curves, formatting, gallery, maps, tables
from components.reporting.figures import Picture, tile
from components.reporting.inputs import Inputs
from components.reporting.projection import one_thread
from data.format import SPLITS

TEMPLATE = "report.html.j2"


def page(inputs: Inputs, sections: Mapping[str, Section]) -> str:
    """The whole report as HTML text; `sections` are the settings by section name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=formatting.number,
        percent=formatting.percent,
        with_interval=formatting.with_interval,
        measure=formatting.measure,
        decimals=formatting.decimals,
    )
    template = environment.from_string(files("components.reporting").joinpath(TEMPLATE).read_text("utf-8"))
    with one_thread():
        return template.render(**_probe(inputs), **_model(inputs), **_data(inputs), settings=tables.settings(sections))


def _probe(inputs: Inputs) -> dict[str, Any]:
    """The answer, the curves, and what the embeddings look like."""
    probe = inputs.artifacts["probe"].path
    curve = pd.read_csv(probe / "curve.csv")
    multi_label = inputs.dataset.info.multi_label
    return {
        "metrics": inputs.metrics,
        "baselines": tables.baselines(inputs.metrics),
        "over_t": accuracy.over_t(curve, inputs.metrics),
        "val_rows": accuracy.val_accuracy(curve).query("representation == 'dier'").to_dict("records"),
        "confusion": None if multi_label else _confusion(inputs),
        "label_results": tables.label_results(inputs) if multi_label else [],
        "embedding_map": maps.embedding_map(inputs),
        "neighbours": gallery.neighbours(inputs),
    }


def _confusion(inputs: Inputs) -> Picture:
    found = pq.read_table(inputs.artifacts["probe"].path / "predictions.parquet", columns=["label", "dier"])
    return accuracy.confusion(found["label"].to_numpy(), found["dier"].to_numpy(), inputs.dataset.info.class_names)


def _model(inputs: Inputs) -> dict[str, Any]:
    """Training, and what the denoiser does with v_t."""
    model = inputs.artifacts["model"]
    summary = model.json("summary.json")
    timesteps, shown = gallery.denoised(inputs)
    return {
        "summary": summary,
        "sought": formatting.SOUGHT[model.json("config.json").get("prediction", "eps")],
        "training": curves.training(pd.read_csv(model.path / "curve.csv")),
        "gap": curves.gap(summary["gap"]),
        "denoise_at": timesteps,
        "denoised": shown,
    }


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
