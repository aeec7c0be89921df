"""The five artifacts behind a report, read, checked, and held to belong together."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from components.common import artifact
from components.common.artifact import Artifact
from components.common.lineage import check_one_run
from components.embedding import sample
from components.embedding.store import files_of
from data.format import Dataset, open_dataset

SOUGHT = {"eps": "the noise", "v": "a mix of the noise and the clean image", "x0": "the clean image"}
"""What the denoiser predicts, by `model.prediction`."""


@dataclass(frozen=True)
class Inputs:
    """Everything that the page is drawn from; images and embeddings stay on disk."""

    artifacts: dict[str, Artifact]
    dataset: Dataset
    metrics: dict[str, Any]
    summary: dict[str, Any]
    """What training says of itself: the model's summary.json."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """`made_from` of the report."""
        return {name: found.fingerprint for name, found in self.artifacts.items()}

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The probe's curve.csv."""
        return pd.read_csv(self.artifacts["probe"].path / "curve.csv")

    @property
    def labelled(self) -> bool:
        """Whether labels tell images apart: where they do not, nothing on the page speaks of accuracy or classes."""
        return self.dataset.info.labelled

    @property
    def t(self) -> int:
        """The timestep chosen on val."""
        return int(self.metrics["t"])

    @property
    def sought(self) -> str:
        """What the denoiser predicts, in words."""
        return SOUGHT[self.artifacts["model"].json("config.json").get("prediction", "eps")]

    @property
    def picture_split(self) -> str:
        """The split whose images are shown: never test while there is another."""
        return next(name for name in ("val", "train", "test") if self.dataset.info.counts.get(name))

    def embeddings(self, split: str, t: int) -> list[Path]:
        """The files with the embeddings of one split at one timestep; none where they were not exported."""
        return files_of(self.artifacts["embeddings"].path, split, t)

    def sample(self) -> sample.Sample | None:
        """Some test images with their embeddings where DiER's are taken; None where those were not exported."""
        return sample.take(self.dataset, self.artifacts["embeddings"], self.metrics.get("timesteps", [self.t]))


def read_inputs(paths: dict[str, Path]) -> Inputs:
    """Read the five artifacts, named by kind. Raises ArtifactError when one is damaged or they are not of one run."""
    found = {kind: artifact.read(path, kind) for kind, path in paths.items()}
    check_one_run(*found.values())
    metrics, summary = found["probe"].json("metrics.json"), found["model"].json("summary.json")
    return Inputs(found, open_dataset(paths["dataset"]), metrics, summary)
