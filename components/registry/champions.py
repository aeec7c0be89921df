"""Whom a new version is compared with: the champion, the best of the earlier ones, and what each got right."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from components.registry import package, versions
from components.registry.gate import Champion, Predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient


def champions(client: "MlflowClient", name: str, dataset: str, version: int | None) -> list[Champion]:
    """The champion, and the most accurate that was one before on the same dataset: small losses, one after another, don't add up.

    Empty where there is no champion, or `version` is it. Earlier ones that were deleted, or that the gate had refused, don't count.
    """
    present = versions.aliases(client, name).get(versions.CHAMPION)
    if present is None or present == version:
        return []
    tags = {int(found.version): found.tags for found in versions.versions(client, name)}
    earlier = [
        number
        for number in sorted((versions.ever_champion(client, name) & tags.keys()) - {version})
        if tags[number].get(versions.DATASET_TAG) == dataset and tags[number].get(versions.GATE_TAG) != versions.REFUSED
    ]
    best = max(earlier, key=lambda number: (float(tags[number][versions.ACCURACY_TAG]), number == present), default=present)
    found = []
    for number in dict.fromkeys((present, best)):
        tested_on = tags[number].get(versions.DATASET_TAG)
        found.append(Champion(number, tested_on, _stored(name, number) if tested_on == dataset else None))
    return found


def predictions(file: Path) -> Predictions:
    """What a `predictions.parquet` says. Raises OSError, ValueError or KeyError where it is none."""
    table = pq.read_table(file, columns=["index", "correct"])
    return Predictions(table["index"].to_numpy(), np.asarray(table["correct"].to_numpy(), np.float64))


def _stored(name: str, version: int) -> Predictions | None:
    """The test predictions kept with a version; None where they are gone or damaged."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return predictions(Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}/{package.PREDICTIONS}")))
    except (MlflowException, OSError, ValueError, KeyError):
        return None
