"""The tables of the page, as plain rows; the template only lays them out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from components.common.artifact import MANIFEST
from components.common.formatting import gain, measure, percent
from components.common.settings import Section
from components.embedding.store import pieces
from components.probing.baselines import baseline_of, label
from components.reporting.formatting import comparison, number
from components.reporting.inputs import Inputs

WORST_PAIRS = 6


@dataclass(frozen=True)
class BaselineRow:
    """One baseline beside DiER, in the metric that chose; `sign` is better, worse or even, as seen from DiER.

    `headline` marks those named on top of the page: all but blocks that another block of the same baseline beats on val.
    """

    name: str
    t: str
    c: str
    val: str
    test: str
    difference: str
    sign: str
    verdict: str
    headline: bool


def baselines(metrics: Mapping[str, Any]) -> list[BaselineRow]:
    """A row a baseline, the strongest on test first."""
    metric = metrics["chosen_by"]
    found = sorted(metrics["baselines"].items(), key=lambda item: -(item[1]["test"][metric]["value"] or 0))
    best: dict[str, str] = {}
    for name, _ in sorted(found, key=lambda item: item[1]["val"][metric]["value"] or 0):
        best[baseline_of(name)] = name
    rows = []
    for name, result in found:
        sign, verdict = comparison(result["difference"][metric])
        rows.append(
            BaselineRow(
                name=label(name) + (f" ({result['variant']})" if result["variant"] else ""),
                t=number(result["t"]),
                c=number(result["c"]),
                val=measure(result["val"][metric], metric),
                test=measure(result["test"][metric], metric),
                difference=gain(result["difference"][metric], metric),
                sign=sign,
                verdict=verdict,
                headline=best[baseline_of(name)] == name,
            )
        )
    return rows


@dataclass(frozen=True)
class Setting:
    """One setting as it was, and whether that differs from its default."""

    name: str
    value: str
    meaning: str
    changed: bool


def settings(sections: Mapping[str, Section]) -> dict[str, list[Setting]]:
    """Every setting a step was given, by section. Of paths only the last part: a report tells nothing about a machine."""
    return {name: [_setting(section, key, value) for key, value in section.record().items()] for name, section in sections.items()}


def _setting(section: Section, key: str, recorded: Any) -> Setting:
    field = type(section).model_fields[key]
    text = recorded if isinstance(recorded, str) else json.dumps(recorded)
    changed = getattr(section, key) != field.get_default(call_default_factory=True)
    return Setting(key, text, field.description or "", changed)


@dataclass(frozen=True)
class LabelResult:
    """How one label of a multi-label task is recognised on test."""

    name: str
    positives: str
    accuracy: str
    auc: str


def label_results(inputs: Inputs) -> list[LabelResult]:
    """Accuracy and AUC of each label on test; AUC needs the test embeddings at the chosen t, and is left out without them."""
    found = pq.read_table(inputs.artifacts["probe"].path / "predictions.parquet", columns=["label", "dier"])
    lists = (found[name].combine_chunks() for name in ("label", "dier"))
    truth, predicted = (column.flatten().to_numpy().reshape(len(column), -1).astype(np.int64) for column in lists)  # (N, L)
    areas = _label_aucs(inputs, truth)
    return [
        LabelResult(name, number(int(truth[:, k].sum())), percent(float((truth[:, k] == predicted[:, k]).mean())), areas[k])
        for k, name in enumerate(inputs.dataset.info.class_names)
    ]


def _label_aucs(inputs: Inputs, truth: Any) -> list[str]:
    from sklearn.metrics import roc_auc_score

    files = [inputs.embeddings("test", t) for t in inputs.metrics.get("timesteps", [inputs.t])]
    if not all(files):
        return [number(None)] * truth.shape[1]
    weights = load_file(inputs.artifacts["probe"].path / "classifier.safetensors")
    together = (np.concatenate([v for _, v in parts], axis=1) for parts in zip(*map(pieces, files), strict=True))
    logits = np.concatenate([v @ weights["weight"].T + weights["bias"] for v in together])  # (N, L)
    areas = []
    for k in range(truth.shape[1]):
        both = 0 < truth[:, k].sum() < len(truth)
        areas.append(f"{roc_auc_score(truth[:, k], logits[:, k]):.3f}" if both else number(None))
    return areas


@dataclass(frozen=True)
class Source:
    """Where one artifact came from."""

    kind: str
    fingerprint: str
    made_from: str
    size: str


def provenance(inputs: Inputs) -> list[Source]:
    """A row an artifact, in the order of the pipeline."""
    rows = []
    for kind, found in inputs.artifacts.items():
        files = found.json(MANIFEST)["files"]
        megabytes = sum(entry["bytes"] for entry in files.values()) / 1e6
        made_from = ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(found.made_from.items()))
        rows.append(Source(kind, found.fingerprint, made_from or "its source", f"{megabytes:.1f} MB in {len(files)} files"))
    return rows
