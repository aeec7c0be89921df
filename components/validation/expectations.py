"""What is measured, and what is expected of it: a table with a row an image, one with a row a split, and the suite over both.

An expectation with a limit is a column of `_flags`, an entry of `checks`, and the limit's setting.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.common.progress import say, track
from components.common.settings import ValidateSettings
from data.format import SPLITS, Dataset, DatasetInfo, Split
from data.quality.candidates import INDEXED
from data.quality.near_duplicates import Pair, References
from data.quality.statistics import SCHEMA, bad_labels, class_counts, copies, image_statistics, numbered

Severity = Literal["error", "warning"]
Observed = float | int | str
Flags = npt.NDArray[np.bool_]

NAMED = 5
"""Images that a message lists."""
INDEXED_NOTE = (
    f"Among more than {INDEXED:,} images, pictures to compare with come from an approximate index: "
    "a few near-duplicates in a hundred may be missed (docs/validation.md has it measured). Copies, byte for byte, are all found."
)
EARLIER = {"val": ("train",), "test": ("train", "val")}
"""Where the copy of an image does harm: val may not stand in train, test in neither."""


@dataclass(frozen=True)
class Check:
    """One named expectation."""

    name: str
    severity: Severity
    says: str
    """What is expected, as a sentence for people."""
    table: Literal["images", "splits"]
    limit: Observed
    expectation: str
    """Great Expectations' class, and below what it is made with."""
    arguments: dict[str, Any]
    setting: str | None = None
    """The setting that holds the limit."""


@dataclass(frozen=True)
class Measures:
    """What was measured."""

    images: pa.Table
    """`data.quality.statistics.SCHEMA`, a row an image."""
    splits: pd.DataFrame
    """A row a split, a column a measure; empty where a measure has no meaning for a split."""
    where: dict[str, str]
    """For a column of `splits`: the worst split and its first images, for people."""
    classes: dict[str, list[float]]
    """For each split the share of its images in each class, or with each label."""
    pairs: list[Pair]
    """Near-duplicates, the most alike first."""
    notes: list[str]
    """What was not looked at in full, for people."""

    def of(self, split: str, column: str) -> npt.NDArray[Any]:
        """One statistic of the images of a split: (n,)."""
        sizes = self.splits["images"].tolist()
        place = self.splits["split"].tolist().index(split)
        values: npt.NDArray[Any] = self.images.column(column).slice(sum(sizes[:place]), sizes[place]).to_numpy()
        return values


def checks(info: DatasetInfo, settings: ValidateSettings) -> list[Check]:
    """The suite for a dataset, in the order of the docs."""
    labels = f"uint8 (N, {len(info.class_names)})" if info.multi_label else "int64 (N)"
    shape = " x ".join(str(size) for size in info.image_shape)
    total = sum(info.counts.values())

    def at_most(name: str, severity: Severity, column: str, says: str, setting: str | None = None) -> Check:
        limit = float(getattr(settings, setting)) if setting else 0.0
        arguments = {"column": column, "max_value": limit}
        key = f"validate.{setting}" if setting else None
        return Check(name, severity, says, "splits", limit, "ExpectColumnMaxToBeBetween", arguments, key)

    def one_of(name: str, says: str, *allowed: str | int) -> Check:
        arguments = {"column": name, "value_set": list(allowed)}
        return Check(name, "error", says, "splits", " or ".join(map(str, allowed)), "ExpectColumnValuesToBeInSet", arguments)

    def table(name: str, says: str, limit: Observed, expectation: str, **arguments: Any) -> Check:
        return Check(name, "error", says, "images", limit, expectation, arguments)

    columns = {"column_list": SCHEMA.names}
    return [
        table(
            "statistics_schema",
            "The statistics have the agreed columns",
            f"{len(SCHEMA.names)} columns",
            "ExpectTableColumnsToMatchOrderedList",
            **columns,
        ),
        table(
            "one_row_an_image",
            "Every image that dataset.json counts has statistics",
            total,
            "ExpectTableRowCountToEqual",
            value=total,
        ),
        one_of("image_type", "Images are bytes", "uint8"),
        one_of("image_shape", "Images have the height, width and channels of dataset.json", shape),
        one_of("channels", "Images are grey or RGB", 1, 3),
        one_of("label_format", "Labels have the type and shape that the task asks for", labels),
        at_most("labels_in_range", "error", "bad_label_share", "Every label is a whole number that names a class"),
        at_most("values_finite", "error", "not_finite_share", "Every statistic of an image is a finite number"),
        at_most("classes_in_train", "error", "missing_in_train", "Every class has images in train"),
        at_most("classes_in_val_and_test", "warning", "missing_in_val_or_test", "Every class has images in val and in test"),
        at_most("blank_images", "error", "blank_share", "Few images are blank", "max_blank_share"),
        at_most("constant_images", "error", "constant_share", "Few images are of one grey level", "max_constant_share"),
        at_most("saturated_images", "warning", "saturated_share", "Few images are saturated", "max_saturated_share"),
        at_most("duplicates", "warning", "duplicate_share", "Few images are copies in a split", "max_duplicate_share"),
        at_most("leaks", "error", "leak_share", "Few images of val or test stand in another split", "max_leak_share"),
        at_most(
            "near_duplicates",
            "error",
            "near_duplicate_share",
            "Val and test are not made of near-duplicates of other splits",
            "max_near_duplicate_share",
        ),
        at_most(
            "near_duplicates_rare",
            "warning",
            "near_duplicate_share",
            "Near-duplicates across splits are rare",
            "warn_near_duplicate_share",
        ),
        at_most("class_balance", "warning", "class_shift", "Val and test have train's class balance", "max_class_shift"),
        at_most("brightness", "warning", "brightness_shift", "Val and test are as bright as train", "max_pixel_shift"),
        at_most("contrast", "warning", "contrast_shift", "Val and test have train's contrast", "max_pixel_shift"),
    ]


def measure(dataset: Dataset, settings: ValidateSettings) -> Measures:
    """Measure a dataset. Raises DataError when a split cannot be opened."""
    splits = [dataset.split(name) for name in SPLITS]
    table = pa.concat_tables([_statistics(split) for split in splits])
    pairs, notes = _pairs(splits, settings.near_duplicate_distance)
    flags = _flags(table, splits, dataset.info, settings, pairs)
    counts: dict[str, npt.NDArray[np.int64]] = {
        split.name: class_counts(split.labels, len(dataset.info.class_names)) for split in splits
    }
    summary = pd.DataFrame([_described(split) for split in splits])
    for column, hits in flags.items():
        summary[column] = [hits[name].mean() if name in hits else np.nan for name in SPLITS]
    shares: dict[str, npt.NDArray[np.float64]] = {split.name: counts[split.name] / len(split) for split in splits}
    missing = [int((counts[name] == 0).sum()) for name in SPLITS]
    where = {column: _where(hits) for column, hits in flags.items()}
    for column, chosen in (("missing_in_train", SPLITS[:1]), ("missing_in_val_or_test", SPLITS[1:])):
        where[column] = _absent(counts, chosen, dataset.info.class_names)
    measures = Measures(table, summary, where, {name: values.tolist() for name, values in shares.items()}, pairs, notes)
    shifts = _shifts(measures, shares, dataset.info.multi_label)
    summary = summary.assign(
        missing_in_train=[missing[0], np.nan, np.nan],
        missing_in_val_or_test=[np.nan, *missing[1:]],
        **{column: [np.nan, *values] for column, values in shifts.items()},
    )
    return replace(measures, splits=summary)


def _statistics(split: Split) -> pa.Table:
    say(f"validate: statistics of {len(split)} images of {split.name}")
    return image_statistics(split)


def _pairs(splits: list[Split], distance: float) -> tuple[list[Pair], list[str]]:
    """The near-duplicates that do harm (EARLIER: each split among those before it), and notes on how they were looked for."""
    references, found = References(splits[:-1]), []
    for among, split in enumerate(splits[1:], 1):
        pairs = references.find(split, distance, among)
        found += [pair for pair in track(pairs, len(split), f"validate: near-duplicates of {split.name}", "images") if pair]
    return sorted(found, key=lambda pair: (pair.distance, pair.split == "test", pair.index)), [
        INDEXED_NOTE
    ] if references.indexed else []


def _flags(
    table: pa.Table, splits: list[Split], info: DatasetInfo, settings: ValidateSettings, pairs: list[Pair]
) -> dict[str, dict[str, Flags]]:
    """For each share, and each split that is asked, the images that count: (n,)."""
    hashes, start = numbered(table), 0
    known = np.zeros(int(hashes.max(initial=-1)) + 1, bool)  # the hashes of the splits so far
    flags: dict[str, dict[str, Flags]] = {}
    for split in splits:
        end = start + len(split)
        images = {
            name: table.column(name).slice(start, len(split)).to_numpy() for name in ("mean", "std", "max", "saturated_share")
        }
        own, start = hashes[start:end], end
        picture = images["std"] > 0  # a blank or constant image is judged as such, never as a copy
        found = {
            "not_finite_share": ~np.isfinite(images["mean"] + images["std"]),
            "bad_label_share": bad_labels(split.labels, len(info.class_names)),
            "blank_share": images["max"] == 0,
            "constant_share": (images["std"] == 0) & (images["max"] > 0),
            "saturated_share": images["saturated_share"] > settings.saturated_pixel_share,
            "duplicate_share": picture & copies(own),
            "leak_share": picture & known[own],
            "near_duplicate_share": np.isin(np.arange(len(split)), [pair.index for pair in pairs if pair.split == split.name]),
        }
        known[own] = True
        for column, hits in found.items():
            if split.name in EARLIER or column not in ("leak_share", "near_duplicate_share"):
                flags.setdefault(column, {})[split.name] = hits
    return flags


def _described(split: Split) -> dict[str, Any]:
    labels = ", ".join(["N", *(str(size) for size in split.labels.shape[1:])])
    return {
        "split": split.name,
        "images": len(split),
        "image_type": str(split.images.dtype),
        "image_shape": " x ".join(str(size) for size in split.images.shape[1:]),
        "channels": int(split.images.shape[3]),
        "label_format": f"{split.labels.dtype} ({labels})",
    }


def _shifts(measures: Measures, shares: dict[str, npt.NDArray[Any]], multi_label: bool) -> dict[str, list[float]]:
    """How far val and test lie from train, in classes and in the mean and standard deviation of the images."""
    shifts: dict[str, list[float]] = {"class_shift": [], "brightness_shift": [], "contrast_shift": []}
    for name in EARLIER:
        apart = np.abs(shares[name] - shares["train"])
        shifts["class_shift"].append(float(apart.max() if multi_label else apart.sum() / 2))
        for column, measure in (("brightness_shift", "mean"), ("contrast_shift", "std")):
            here, train = pd.Series(measures.of(name, measure)), pd.Series(measures.of("train", measure))
            scale = max(float(train.std(ddof=0)), 1.0)  # at least one grey level, so that equal images do not divide by 0
            shifts[column].append(abs(float(here.mean()) - float(train.mean())) / scale)
    return shifts


def _where(hits: dict[str, Flags]) -> str:
    """The split with the largest share, how many images that is, and the first of them; nothing when there are none."""
    worst = max(hits, key=lambda split: hits[split].mean())  # the first of equals
    found = np.flatnonzero(hits[worst])
    if not len(found):
        return ""
    named = ", ".join(map(str, found[:NAMED])) + (", ..." if len(found) > NAMED else "")
    return f"{worst} breaks this in {len(found)} of {len(hits[worst])} images ({named})"


def _absent(counts: dict[str, npt.NDArray[np.int64]], splits: tuple[str, ...], names: list[str]) -> str:
    absent = {split: [names[label] for label in np.flatnonzero(counts[split] == 0)] for split in splits}
    return "; ".join(f"{split} lacks {', '.join(lacking[:NAMED])}" for split, lacking in absent.items() if lacking)
