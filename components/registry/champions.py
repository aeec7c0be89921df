"""Whom a new version is compared with: the champion, the best of the earlier ones, and what each got right."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from components.registry import package, promotions, versions
from components.registry.gate import Champion, Predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient


def champions(client: "MlflowClient", name: str, dataset: str, version: int | None, kept: str) -> list[Champion]:
    """The champion, and the most accurate that was one before on the same dataset: small losses, one after another, don't add up.

    `kept` names the file of a version that says what it got right. Empty where there is no champion, or `version` is it. Earlier
    ones that were deleted, or that the gate had refused, don't count.
    """
    present = versions.aliases(client, name).get(versions.CHAMPION)
    if present is None or present == version:
        return []
    tags = {int(found.version): found.tags for found in versions.versions(client, name)}
    earlier = [
        number
        for number in sorted((promotions.ever_champion(client, name) & tags.keys()) - {version})
        if tags[number].get(versions.DATASET_TAG) == dataset and tags[number].get(versions.GATE_TAG) != versions.REFUSED
    ]
    best = max(earlier, key=lambda number: (_figure(tags[number]), number == present), default=present)
    found = []
    for number in dict.fromkeys((present, best)):
        tested_on = tags[number].get(versions.DATASET_TAG)
        found.append(Champion(number, tested_on, _stored(name, number, kept) if tested_on == dataset else None))
    return found


def _figure(tags: Mapping[str, str]) -> float:
    """What versions of one dataset are ranked by: the accuracy, or the share of neighbours kept."""
    return float(tags[versions.ACCURACY_TAG] if versions.ACCURACY_TAG in tags else tags[versions.KEPT_TAG])


def predictions(file: Path) -> Predictions:
    """What a `predictions.parquet` or `neighbours.parquet` says. Raises OSError, ValueError or KeyError where it is neither."""
    table = pq.read_table(file)
    column = table["correct" if "correct" in table.column_names else "kept"]
    measure = (table.schema.metadata or {}).get(b"measure", b"").decode()
    return Predictions(table["index"].to_numpy(), np.asarray(column.to_numpy(), np.float64), measure)


def _stored(name: str, version: int, file: str) -> Predictions | None:
    """The test predictions, or neighbours, kept with a version; None where they are gone or damaged."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return predictions(Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}/{package.FILES_FOLDER}/{file}")))
    except (MlflowException, OSError, ValueError, KeyError):
        return None
