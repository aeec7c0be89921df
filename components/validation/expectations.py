"""What is measured, and what is expected of it: a table with a row an image, one with a row a split, and the suite over both.

An expectation with a limit is a column of `_flags`, an entry of `checks`, and the limit's setting.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.common.progress import track
from components.common.settings import ValidateSettings
from data.format import SPLITS, Dataset, DatasetInfo, Split
from data.quality import near_duplicates
from data.quality.near_duplicates import Pair
from data.quality.statistics import SCHEMA, bad_labels, class_counts, image_statistics

Severity = Literal["error", "warning"]
Observed = float | int | str

NAMED = 5
"""Images that a message lists."""
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
    table = pa.concat_tables([image_statistics(split) for split in splits])
    images = table.to_pandas()
    pairs = _pairs(dataset, settings.near_duplicate_distance)
    flags = _flags(images, splits, dataset.info, settings, pairs)
    counts: dict[str, npt.NDArray[np.int64]] = {
        split.name: class_counts(split.labels, len(dataset.info.class_names)) for split in splits
    }
    summary = pd.DataFrame([_described(split) for split in splits])
    by_split = flags.groupby(images["split"], sort=False).mean()
    for column in flags:
        summary[column] = by_split[column].to_numpy()
    shares: dict[str, npt.NDArray[np.float64]] = {split.name: counts[split.name] / len(split) for split in splits}
    shifts = _shifts(images, shares, dataset.info.multi_label)
    missing = [int((counts[name] == 0).sum()) for name in SPLITS]
    summary = summary.assign(
        missing_in_train=[missing[0], np.nan, np.nan],
        missing_in_val_or_test=[np.nan, *missing[1:]],
        **{column: [np.nan, *values] for column, values in shifts.items()},
    )
    where = {str(column): _where(flags[column], images) for column in flags}
    for column, chosen in (("missing_in_train", SPLITS[:1]), ("missing_in_val_or_test", SPLITS[1:])):
        where[column] = _absent(counts, chosen, dataset.info.class_names)
    return Measures(table, summary, where, {name: values.tolist() for name, values in shares.items()}, pairs)


def _pairs(dataset: Dataset, distance: float) -> list[Pair]:
    found = []
    for name, others in EARLIER.items():
        split = dataset.split(name)
        pairs = near_duplicates.find(split, [dataset.split(other) for other in others], distance)
        found += [pair for pair in track(pairs, len(split), f"validate: near-duplicates of {name}", "images") if pair]
    return sorted(found, key=lambda pair: (pair.distance, pair.split == "test", pair.index))


def _flags(
    images: pd.DataFrame, splits: list[Split], info: DatasetInfo, settings: ValidateSettings, pairs: list[Pair]
) -> pd.DataFrame:
    """A column a share: 1.0 for the images that it counts, 0.0 for the rest, empty where the split is not asked."""
    picture = images["std"] > 0  # a blank or constant image is judged as such, never as a copy
    flags = pd.DataFrame(
        {
            "not_finite_share": ~np.isfinite(images["mean"] + images["std"]),
            "bad_label_share": np.concatenate([bad_labels(split.labels, len(info.class_names)) for split in splits]),
            "blank_share": images["max"] == 0,
            "constant_share": (images["std"] == 0) & (images["max"] > 0),
            "saturated_share": images["saturated_share"] > settings.saturated_pixel_share,
            "duplicate_share": picture & images.duplicated(["split", "hash"]),
            "leak_share": picture & _leaked(images),
            "near_duplicate_share": _paired(images, pairs),
        }
    ).astype(float)
    flags.loc[images["split"] == "train", ["leak_share", "near_duplicate_share"]] = np.nan
    return flags


def _leaked(images: pd.DataFrame) -> pd.Series:
    leaked = pd.Series(False, images.index)
    for name, others in EARLIER.items():
        known = images.loc[images["split"].isin(others), "hash"]
        leaked |= (images["split"] == name) & images["hash"].isin(known)
    return leaked


def _paired(images: pd.DataFrame, pairs: list[Pair]) -> npt.NDArray[np.bool_]:
    known = pd.MultiIndex.from_tuples([(pair.split, pair.index) for pair in pairs], names=["split", "index"])
    return pd.MultiIndex.from_frame(images[["split", "index"]]).isin(known)


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


def _shifts(images: pd.DataFrame, shares: dict[str, npt.NDArray[Any]], multi_label: bool) -> dict[str, list[float]]:
    """How far val and test lie from train, in classes and in the mean and standard deviation of the images."""
    shifts: dict[str, list[float]] = {"class_shift": [], "brightness_shift": [], "contrast_shift": []}
    train = images[images["split"] == "train"]
    for name in EARLIER:
        apart = np.abs(shares[name] - shares["train"])
        shifts["class_shift"].append(float(apart.max() if multi_label else apart.sum() / 2))
        for column, measure in (("brightness_shift", "mean"), ("contrast_shift", "std")):
            there = images.loc[images["split"] == name, measure].mean()
            scale = max(float(train[measure].std(ddof=0)), 1.0)  # at least one grey level, so that equal images do not divide by 0
            shifts[column].append(abs(float(there) - float(train[measure].mean())) / scale)
    return shifts


def _where(flag: pd.Series, images: pd.DataFrame) -> str:
    """The split with the largest share, how many images that is, and the first of them; nothing when there are none."""
    by_split = flag.groupby(images["split"], sort=False)
    if not flag.any():
        return ""
    worst = str(by_split.mean().idxmax())
    hit = images.loc[(flag == 1) & (images["split"] == worst), "index"]
    named = ", ".join(str(index) for index in hit[:NAMED]) + (", ..." if len(hit) > NAMED else "")
    return f"{worst} breaks this in {len(hit)} of {(images['split'] == worst).sum()} images ({named})"


def _absent(counts: dict[str, npt.NDArray[np.int64]], splits: tuple[str, ...], names: list[str]) -> str:
    absent = {split: [names[label] for label in np.flatnonzero(counts[split] == 0)] for split in splits}
    return "; ".join(f"{split} lacks {', '.join(lacking[:NAMED])}" for split, lacking in absent.items() if lacking)
