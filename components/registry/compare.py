"""`dier compare`: how much better one version is than another on the same test images, overall and by class, in pairs."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.common.errors import ArtifactError, SettingsError
from components.common.formatting import percent, points_with_interval
from components.registry import package, versions
from components.registry.champions import predictions
from components.registry.class_figures import labels_and_guesses
from components.registry.gate import RESAMPLES, SEED, Predictions
from components.registry.listing import table, text
from components.tracking.client import connect, one_line_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Side:
    """A version, and what it got right."""

    asked: str
    version: "ModelVersion"
    right: Predictions
    by_class: dict[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]]
    """For each class (or label) the test images that count (N,), and whether each is right in it (N,). Empty without labels."""

    @property
    def measured(self) -> str:
        """What is compared."""
        return f"neighbours kept, {self.right.measure}" if self.right.measure else "accuracy"

    @property
    def named(self) -> str:
        """For people: NAME@ALIAS (version 3)."""
        return f"{self.asked} (version {self.version.version})" if "@" in self.asked else self.asked


def compare(first: str, second: str, *, as_json: bool) -> str:
    """`second` minus `first`, each NAME@ALIAS or NAME/VERSION: accuracy, or neighbours kept, paired, with 95 % intervals.

    The same bootstrap as the gate's. Raises SettingsError where the two were tested on other images, ArtifactError where what a
    version got right is gone or damaged.
    """
    client = connect(must_exist=True)
    with one_line_errors():
        found = [versions.find(client, asked) for asked in (first, second)]
        _check_same_data(found[0], found[1], first, second)
        old, new = (_side(asked, version) for asked, version in zip((first, second), found, strict=True))
    if old.right.measure != new.right.measure:
        raise SettingsError(
            f"{old.named} and {new.named} cannot be compared: they were measured in different ways "
            f"({old.measured} and {new.measured}); probe both alike"
        )
    if not np.array_equal(old.right.index, new.right.index):
        raise ArtifactError(
            f"{old.named} and {new.named} name other test images of the same dataset: one is damaged; register anew"
        )
    rows = _rows(old, new, int(found[0].tags.get(versions.COPIES_TAG, 1)))
    if as_json:
        sides = {key: {"model": one.asked, "version": int(one.version.version)} for key, one in (("first", old), ("second", new))}
        return json.dumps({**sides, "dataset": found[0].tags[versions.DATASET_TAG], "differences": rows}, indent=2)
    return _as_text(old, new, rows)


def _check_same_data(old: "ModelVersion", new: "ModelVersion", first: str, second: str) -> None:
    for asked, version in ((first, old), (second, new)):
        if versions.DATASET_TAG not in version.tags:
            raise SettingsError(f"{asked} does not say what it was tested on (it was not registered by dier): nothing to compare")
    data = [version.tags[versions.DATASET_TAG] for version in (old, new)]
    if data[0] != data[1]:
        raise SettingsError(
            f"{first} and {second} cannot be compared: they were tested on different data ({data[0][:12]} and {data[1][:12]}); "
            "train, probe and register both on the same"
        )


def _side(asked: str, version: "ModelVersion") -> Side:
    """What a version got right, from the files that are kept with it."""
    file = package.PREDICTIONS if versions.ACCURACY_TAG in version.tags else package.NEIGHBOURS
    with TemporaryDirectory(prefix="dier-compare-") as temporary:
        folder = package.fetch(version, (file, package.SERVING), Path(temporary))
        try:
            right = predictions(folder / file)
            names = json.loads((folder / package.SERVING).read_text("utf-8"))["class_names"]
            return Side(asked, version, right, _by_class(folder / file, names) if names else {})
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{asked}: its {file} is missing or damaged; register that version anew") from error


def _by_class(file: Path, names: list[str]) -> dict[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]]:
    """Of single labels the images of each class; of several labels an image, for each label, all of them."""
    label, guess = labels_and_guesses(file)
    right = (label == guess).astype(np.float64)
    if label.ndim == 2:
        return {name: (np.ones(len(label), np.bool_), right[:, c]) for c, name in enumerate(names)}
    return {name: (label == c, right) for c, name in enumerate(names)}


def _rows(old: Side, new: Side, copies: int) -> list[dict[str, Any]]:
    """Overall, then by class: figures as shares of 1, and how many test images they are of."""
    everywhere = np.ones(len(old.right.index), np.bool_)
    rows = [_row("all", everywhere, old.right.correct, new.right.correct, copies)]
    for name, (of, right) in old.by_class.items():
        if of.any():
            rows.append(_row(name, of, right, new.by_class[name][1], copies))
    return rows


def _row(name: str, of: npt.NDArray[np.bool_], old: Any, new: Any, copies: int) -> dict[str, Any]:
    from components.probing.metrics import Bootstrap

    pairs = (new - old)[of]
    difference = Bootstrap(len(pairs), RESAMPLES, SEED, copies).mean(pairs)
    shares = {"first": round(float(old[of].mean()), 6), "second": round(float(new[of].mean()), 6)}
    return {"class": name, "images": len(pairs), **shares, "difference": difference.row()}


def _as_text(old: Side, new: Side, rows: list[dict[str, Any]]) -> str:
    what = "accuracy" if old.by_class else "neighbours kept"
    shown = [
        [row["class"], str(row["images"]), percent(row["first"]), percent(row["second"]), points_with_interval(row["difference"])]
        for row in rows
    ]
    resampled = f"95 % bootstrap intervals, {RESAMPLES} resamples"
    several = "; one class in twenty leaves out zero by chance alone" if len(rows) > 1 else ""
    head = f"{new.named} minus {old.named}: test {what} in points, over the same test images in pairs ({resampled}{several})"
    header = ["class", "images", old.named, new.named, "difference"]
    return f"{head}\n{text(table(header, shown))}"
