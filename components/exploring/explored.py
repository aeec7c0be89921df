"""What the page shows: images of a split and their labels, embeddings at each t, and the probe's curve, all of one run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.common import artifact
from components.common.artifact import Artifact
from components.common.errors import SettingsError
from components.common.formatting import METRIC_NAMES, measure
from components.common.lineage import check_one_run
from components.embedding import store
from components.inference.search import Exact, others
from components.inference.vectors import Ints, Vectors, open_vectors
from components.probing.baselines import baseline_of
from components.probing.baselines import label as named
from components.reporting.accuracy import val_curve
from components.reporting.projection import sample
from data.format import Dataset, Split, open_dataset

FEWEST_POINTS = 4
"""Below that there is no t-SNE."""
NUMBERS = ["no label", "1 label", "2 labels", "3 or more"]


@dataclass(frozen=True)
class Colouring:
    """One way to colour the points: the `names` of the colours, and for each point that is shown the number of its name."""

    name: str
    names: list[str]
    of: list[int]


@dataclass(frozen=True)
class Explored:
    """The artifacts behind the page; images and embeddings stay on disk."""

    dataset: Dataset
    embedded: Artifact
    split: Split
    vectors: dict[int, Vectors]
    """By timestep, ascending."""
    rows: Ints
    """The images that are on the map, ascending."""
    probe: Artifact | None

    @property
    def timesteps(self) -> list[int]:
        """Those that were exported, ascending."""
        return list(self.vectors)

    @cached_property
    def chosen(self) -> list[int]:
        """The timestep that was chosen on val, or several where they are used side by side; [] without a probe."""
        metrics = {} if self.probe is None else self.probe.json("metrics.json")
        return [t for t in metrics.get("timesteps", [metrics.get("t")]) if t in self.vectors]

    def label(self, row: int) -> str:
        """What the image is, in words; nothing where the images have no labels."""
        info, label = self.dataset.info, self.split.labels[row]
        if not info.labelled:
            return ""
        if info.multi_label:
            return ", ".join(name for name, on in zip(info.class_names, label, strict=True) if on) or NUMBERS[0]
        return info.class_names[int(label)]

    def colourings(self) -> list[Colouring]:
        """By class; of several labels an image by their number and by each; of images without labels one colour."""
        info, labels = self.dataset.info, np.asarray(self.split.labels[self.rows]).astype(int)
        if not info.labelled:
            return [Colouring("", [""], [0] * len(labels))]
        if not info.multi_label:
            return [Colouring("class", info.class_names, labels.tolist())]
        number = Colouring("number of labels", NUMBERS, np.minimum(labels.sum(axis=1), 3).tolist())
        each = [Colouring(name, [f"not {name}", name], labels[:, at].tolist()) for at, name in enumerate(info.class_names)]
        return [number, *each]

    def neighbours(self, row: int, t: int, k: int) -> list[dict[str, Any]]:
        """The k images of the split nearest to one by cosine of their embeddings at t, itself left out, nearest first."""
        vectors = self.vectors[t]
        (near,) = others(Exact(vectors), vectors.rows(np.array([row])), [row], min(k, vectors.count))
        return [{"row": r, "cosine": round(c, 4), "label": self.label(r)} for r, c in near]

    def curve(self) -> dict[str, Any] | None:
        """What the probe found over t: DiER first, then what it has to beat; None without a probe."""
        if self.probe is None:
            return None
        metrics, table = self.probe.json("metrics.json"), pd.read_csv(self.probe.path / "curve.csv")
        if not self.dataset.info.labelled:
            rows = table[(table["split"] != "test") & (table["metric"] == "score") & (table["representation"] == "dier")]
            return {
                "title": "Label-free score, by which t was chosen",
                "percent": False,
                "series": [_series("DiER", rows)],
                "test": "",
            }
        metric = metrics["chosen_by"]
        rows = val_curve(table, metric)
        others = [name for name in _best_blocks(rows) if name != "dier"]
        series = [_series(named(name), rows[rows["representation"] == name]) for name in ["dier", *others]]
        return {
            "title": f"Linear-probe {METRIC_NAMES[metric]} on val",
            "percent": metric != "auc",
            "series": series,
            "test": measure(metrics["test"][metric], metric),
        }


def open_explored(embeddings: Path, dataset: Path | None, probe: Path | None, split: str | None, points: int) -> Explored:
    """Open embeddings with the dataset and, where there is one, the probe beside them, unless others are named.

    Raises SettingsError for a split that was not exported, ArtifactError for artifacts that are damaged or not of one run.
    """
    embedded = artifact.read(embeddings, "embeddings")
    found = artifact.read(dataset or embeddings.parent / "dataset", "dataset")
    beside = embeddings.parent / "probe"
    probed = artifact.read(probe or beside, "probe") if probe is not None or beside.is_dir() else None
    check_one_run(found, embedded, *([] if probed is None else [probed]))
    facts, opened = embedded.json("embeddings.json"), open_dataset(found.path)
    name = split or _first(facts["splits"])
    timesteps: list[int] = sorted(facts["timesteps"])
    first = open_vectors(embeddings, name, timesteps[0])
    if first.count < FEWEST_POINTS:
        raise SettingsError(f"{embeddings} has {first.count} images in {name}, too few for a map: choose another --split")
    # the others differ from it in t alone
    vectors = {t: replace(first, files=store.files_of(embeddings, name, t), timesteps=[t], source={}) for t in timesteps}
    return Explored(opened, embedded, opened.split(name), vectors, sample(first.count, points), probed)


def _first(splits: Sequence[str]) -> str:
    """What is looked at unless another is asked for: test last, on which nobody should choose anything."""
    return next(name for name in ("val", "train", "test") if name in splits)


def _best_blocks(rows: pd.DataFrame) -> list[str]:
    """The representations; of a baseline that is probed block by block the block with the highest value."""
    highest = rows.groupby("representation")["value"].max().sort_values()
    return sorted({baseline_of(str(name)): str(name) for name in highest.index}.values())


def _series(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    """A line of the curve; its one point has no t where the features have none."""
    points = rows.sort_values("t")[["t", "value", "low", "high"]].to_dict("records")
    return {"name": name, "points": [{key: None if math.isnan(v) else float(v) for key, v in p.items()} for p in points]}
