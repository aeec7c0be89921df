"""Which artifacts a local Kubeflow run stands on: its own, and for steps that the cache spared, the very ones it went on from."""

import os
from pathlib import Path

from components.common import artifact
from components.common.errors import ArtifactError
from pipeline.steps import BY_NAME, JOIN, STEPS

MADE_BY = {step.output: step.name for step in STEPS}
"""Artifact: the step that makes it."""


def gather(runs: Path, run: Path) -> dict[str, Path]:
    """Find each artifact of `run`, whole and checked, by name.

    A step that ran left its artifact in the run's folder. One that the cache spared did not; its artifact is then known by the
    fingerprint that a later one was made from, and looked for in earlier runs.
    """
    found: dict[str, Path] = {}
    wanted: dict[str, str] = {}
    for name, step in reversed(MADE_BY.items()):
        left = [run / place for place in _places(step) if (run / place).parent.is_dir()]
        places = left or _earlier(runs, step, wanted.get(name))
        for place in places:
            try:
                checked = artifact.read(place, name)
            except ArtifactError:
                continue
            found[name] = place
            wanted |= checked.made_from
            break
    return {name: found[name] for name in MADE_BY if name in found}


def _earlier(runs: Path, step: str, fingerprint: str | None) -> list[Path]:
    places = sorted((found for place in _places(step) for found in runs.glob(f"*/{place}")), reverse=True)
    return [place for place in places if fingerprint and _fingerprint(place) == fingerprint]


def _places(step: str) -> list[str]:
    """Where in a run a step's artifact may lie: embed may have run in parts, which another task joined (kubeflow/pipeline.py)."""
    return [f"{task}/{BY_NAME[step].kubeflow_output}" for task in ((step, JOIN) if step == "embed" else (step,))]


def _fingerprint(place: Path) -> str | None:
    manifest = place / artifact.MANIFEST
    return artifact.sha256(manifest) if manifest.is_file() else None


def link(found: dict[str, Path], folder: Path) -> None:
    """Make `folder` hold a relative link to each artifact of the latest run, and none to others."""
    for name in MADE_BY:
        place = folder / name
        place.unlink(missing_ok=True)
        if name in found:
            place.symlink_to(os.path.relpath(found[name], folder))
