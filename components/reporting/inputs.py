"""The five artifacts behind a report, read, checked, and held to belong together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.common import artifact
from components.common.artifact import Artifact
from components.common.errors import ArtifactError
from components.embedding.store import file_of
from data.format import Dataset, open_dataset

MADE_FROM = {
    "dataset": (),
    "verdict": ("dataset",),
    "model": ("dataset", "verdict"),
    "embeddings": ("dataset", "model"),
    "probe": ("dataset", "model", "embeddings"),
}


@dataclass(frozen=True)
class Inputs:
    """Everything that the page is drawn from; images and embeddings stay on disk."""

    artifacts: dict[str, Artifact]
    dataset: Dataset
    metrics: dict[str, Any]

    @property
    def fingerprints(self) -> dict[str, str]:
        """`made_from` of the report."""
        return {name: found.fingerprint for name, found in self.artifacts.items()}

    @property
    def t(self) -> int:
        """The timestep chosen on val."""
        return int(self.metrics["t"])

    @property
    def look_split(self) -> str:
        """The split whose images are shown: never test while there is another."""
        return next(name for name in ("val", "train", "test") if self.dataset.info.counts.get(name))

    def parquet(self, split: str, t: int) -> Path | None:
        """The embeddings of one split at one timestep, or None where they were not exported."""
        file = file_of(self.artifacts["embeddings"].path, split, t)
        return file if file.is_file() else None


def read_inputs(paths: dict[str, Path]) -> Inputs:
    """Read the artifacts named as in `MADE_FROM`. Raises ArtifactError when one is damaged or they do not belong together."""
    found = {name: artifact.read(paths[name], name) for name in MADE_FROM}
    for name, sources in MADE_FROM.items():
        for source in sources:
            _check_made_from(found[name], found[source])
    return Inputs(found, open_dataset(paths["dataset"]), found["probe"].json("metrics.json"))


def _check_made_from(made: Artifact, source: Artifact) -> None:
    recorded = made.made_from.get(source.kind, "none")
    if recorded != source.fingerprint:
        raise ArtifactError(
            f"{made.kind} artifact {made.path} was not made from {source.path}: it records {source.kind} {recorded[:12]}, that is "
            f"{source.fingerprint[:12]}; give artifacts of one run, or make the {made.kind} artifact again"
        )
