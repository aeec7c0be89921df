"""Metadata of each artifact on Kubeflow's pages: a few plain values that people search and compare by, read off the artifact.

The page of an artifact lists them by name in alphabetical order; a structure is shown there as JSON, a bool as 0 or 1, so each
value is a number, a short text, or a list of sentences.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.steps import JOIN

Metadata = dict[str, Any]


def describe(step: str, artifact: Path) -> Metadata:
    """Metadata of the artifact of `step`."""
    return _DESCRIBED[step](artifact) if step in _DESCRIBED else {}


def storable(metadata: Mapping[str, Any]) -> Metadata:
    """The same without what Kubeflow's launcher refuses, however deep: a refusal fails a task that has done its work.

    It takes no null (kubeflow/pipelines 2.17.0, backend/src/v2/metadata/converter.go:130-163), and reads JSON as protobuf does: no
    NaN, no infinity, no number beyond a double's range, no half of a surrogate pair in a text.
    """
    return {_text(key): _storable(value) for key, value in metadata.items() if _has_value(value)}


def _storable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return storable(value)
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value if _has_value(inner)]
    return _text(value) if isinstance(value, str) else value


def _has_value(value: Any) -> bool:
    try:
        return value is not None and (not isinstance(value, int | float) or math.isfinite(value))
    except OverflowError:  # a whole number that no double holds
        return False


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8")


def read(file: Path) -> Any:
    """A JSON file of an artifact."""
    return json.loads(file.read_text("utf-8"))


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"


def _counts(counts: Mapping[str, int]) -> Metadata:
    return {f"images_{split}": count for split, count in counts.items()}


def _dataset(artifact: Path) -> Metadata:
    facts = read(artifact / "dataset.json")
    return {
        **{key: facts[key] for key in ("name", "source", "licence", "task")},
        "classes": len(facts["class_names"]),
        "image_shape": " x ".join(map(str, facts["image_shape"])),
        **_counts(facts["counts"]),
    }


def _verdict(artifact: Path) -> Metadata:
    verdict = read(artifact / "verdict.json")
    failed = [check for check in verdict["expectations"] if not check["passed"]]
    names = {severity: [check["name"] for check in failed if check["severity"] == severity] for severity in ("error", "warning")}
    return {
        "verdict": "passed" if verdict["passed"] else "failed",
        "expectations": len(verdict["expectations"]),
        "failed": _listed(names["error"]),
        "warnings": _listed(names["warning"]),
    }


def _model(artifact: Path) -> Metadata:
    summary = read(artifact / "summary.json")
    return {
        "framework": "pytorch",
        "steps": summary["steps"],
        **{f"parameters_{network}": count for network, count in summary["parameters"].items()},
        "training_key": summary["training_key"],
        "warnings": list(summary["warnings"]) or "none",
    }


def _embeddings(artifact: Path) -> Metadata:
    facts = read(artifact / "embeddings.json")
    part = {"part": " of ".join(map(str, facts["part"]))} if "part" in facts else {}  # [k, n]
    return {
        "timesteps": _listed(facts["timesteps"]),
        **part,
        **{key: facts[key] for key in ("dtype", "embed_dim")},
        **_counts({split: facts["counts"][split] for split in facts["splits"]}),
    }


def _probe(artifact: Path) -> Metadata:
    metrics = read(artifact / "metrics.json")
    found = [metrics["peak"]["sentence"], *metrics["conclusions"]]
    return {**{key: metrics[key] for key in ("dataset", "t", "c", "chosen_by") if key in metrics}, "conclusions": found}


def _report(artifact: Path) -> Metadata:
    return {"files": _listed(sorted(read(artifact / "manifest.json")["files"]))}


def _registration(artifact: Path) -> Metadata:
    made = read(artifact / "registration.json")
    return {
        **{key: made[key] for key in ("name", "version", "run_id")},
        "verdict": made["gate"]["verdict"],
        "reasons": made["gate"]["reasons"],
        "aliases": _listed(made["aliases"]),
    }


_DESCRIBED: Mapping[str, Callable[[Path], Metadata]] = {
    "prepare": _dataset,
    "validate": _verdict,
    "train": _model,
    "embed": _embeddings,
    JOIN: _embeddings,
    "probe": _probe,
    "report": _report,
    "register": _registration,
}
