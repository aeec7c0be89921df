"""Whom a version is compared with: the champion, the best of the earlier ones, and what each got right."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from components.registry import gate, package, promotions, versions
from components.registry.gate import Champion, Gate, Predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def champions(
    client: "MlflowClient", name: str, dataset: str | None, version: int | None, present: int | None, kept: str
) -> list[Champion]:
    """`present`, the champion, and the most accurate that was one before on the same dataset: small losses do not add up.

    `kept` names the file of a version that says what it got right. Empty where there is no champion, or `version` is it. Earlier
    ones that were deleted, or that the gate had refused, don't count.
    """
    if present is None or present == version:
        return []
    known = {int(found.version): found for found in versions.versions(client, name)}
    tags = {number: found.tags for number, found in known.items()}
    earlier = [
        number
        for number in sorted((promotions.ever_champion(client, name) & tags.keys()) - {version})
        if tags[number].get(versions.DATASET_TAG) == dataset and tags[number].get(versions.GATE_TAG) != versions.REFUSED
    ]
    best = max(earlier, key=lambda number: (_figure(tags[number]), number == present), default=present)
    found = []
    for number in dict.fromkeys((present, best)):
        tested_on = tags[number].get(versions.DATASET_TAG)
        found.append(Champion(number, tested_on, _stored(known[number], kept) if tested_on == dataset else None))
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


def beside(client: "MlflowClient", chosen: "ModelVersion", present: int | None) -> Gate:
    """The verdict on a stored version beside the champion `present`; compared anew where the gate had another one beside it.

    From what is stored with both, by the margin of that time. A version that was refused, or never judged, stays so.
    """
    tags = chosen.tags
    verdict, reasons = tags.get(versions.GATE_TAG, "unknown"), json.loads(tags.get(versions.REASONS_TAG, "[]"))
    judged = json.loads(tags.get(versions.BESIDE_TAG) or tags.get(versions.SETTINGS_TAG) or "null")  # the latter by an earlier dier
    may_change = present is not None and verdict in (versions.PASSED, versions.UNCOMPARED)
    if not may_change or judged is None or judged.get("champion") == present:
        return Gate(verdict, reasons)
    name, number, dataset = chosen.name, int(chosen.version), tags.get(versions.DATASET_TAG)
    kept = package.PREDICTIONS if versions.ACCURACY_TAG in tags else package.NEIGHBOURS
    found = champions(client, name, dataset, number, present, kept)
    comparable = any(champion.predictions is not None for champion in found)
    new = _stored(chosen, kept) if comparable else None
    return gate.compare(new, dataset, found, judged["margin"], int(tags.get(versions.COPIES_TAG, 1)))


def _stored(version: "ModelVersion", file: str) -> Predictions | None:
    """The test predictions, or neighbours, kept with a version; None where they are gone or damaged.

    Any other error rises: a verdict lasts, so it must not rest on a server that did not answer for a moment.
    """
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory(prefix="dier-champion-") as holder:
        try:
            folder = package.fetch(version, [file], Path(holder))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        try:
            return predictions(folder / file)
        except (OSError, ValueError, KeyError):
            return None
