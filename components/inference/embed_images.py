"""`dier embed-images` and `dier predict`: what a registered model says of new images, a row an image, as one Parquet file.

A block of images at a time is read, run and written, so memory does not grow with their number; the file appears when it is whole.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.common.errors import SettingsError
from components.common.progress import say, track
from components.inference import output
from components.inference.registered_model import RegisteredModel, load
from data.errors import DataError
from data.named_images import NamedImages

Floats = npt.NDArray[np.float32]
SHOWN = 5
"""Pictures left out that are named one by one, and classes that are counted in the last line."""


def embed_images(model: str, images: Sequence[Path], out: Path, *, fit: bool, arrays: Sequence[str], skip_bad: bool) -> None:
    """Write column `embedding`, D float32, of every image.

    Raises SettingsError for a model that is not there, DataError for images that cannot be used.
    """
    loaded = load(model)
    written = _write(loaded, images, out, lambda found: {"embedding": output.vectors(found["embedding"])}, fit, arrays, skip_bad)
    say(f"{out}: embeddings of {written} images, by {loaded.shown} at t = {', '.join(map(str, loaded.timesteps))}")


def predict(model: str, images: Sequence[Path], out: Path, *, fit: bool, arrays: Sequence[str], skip_bad: bool) -> None:
    """Write columns `class`, `probability` (of that class) and `probabilities`, K float32, of every image.

    Of a multi-label model `class` is a list, the labels of probability 0.5 or more, and there is no `probability`. Raises as
    `embed_images`, and SettingsError for a model that predicts no class.
    """
    loaded = load(model)
    if not loaded.class_names:
        raise SettingsError(f"{loaded.shown} predicts no class, as its training images had no labels: use dier embed-images")
    counts = Counter[str]()

    def columns(found: dict[str, Floats]) -> dict[str, pa.Array]:
        made = _classes(found["probabilities"], loaded.class_names, loaded.multi_label)
        flat = made["class"].flatten() if loaded.multi_label else made["class"]
        counts.update(flat.to_pylist())
        return made

    written = _write(loaded, images, out, columns, fit, arrays, skip_bad)
    most = ", ".join(f"{name} {number}" for name, number in counts.most_common(SHOWN))
    more = f", and {len(counts) - SHOWN} classes more" if len(counts) > SHOWN else ""
    say(f"{out}: classes of {written} images, by {loaded.shown}: {most}{more}")


def _classes(probabilities: Floats, names: list[str], multi_label: bool) -> dict[str, pa.Array]:
    """Columns of probabilities (n, K)."""
    all_of_them = {"probabilities": output.vectors(probabilities)}
    if multi_label:
        found = [[name for name, p in zip(names, row, strict=True) if p >= 0.5] for row in probabilities.tolist()]
        return {"class": pa.array(found, pa.list_(pa.string()))} | all_of_them
    best = probabilities.argmax(1)
    chosen = pa.array([names[k] for k in best], pa.string())
    return {"class": chosen, "probability": pa.array(probabilities[np.arange(len(best)), best])} | all_of_them


def _write(
    model: RegisteredModel,
    paths: Sequence[Path],
    out: Path,
    columns: Callable[[dict[str, Floats]], dict[str, pa.Array]],
    fit: bool,
    arrays: Sequence[str],
    skip_bad: bool,
) -> int:
    """Write a row an image; give how many."""
    named = NamedImages(paths, model.shape, fit=fit, arrays=arrays)
    left_out = LeftOut()
    record: dict[str, Any] = model.record() | {"fit": fit}
    blocks = named.blocks(left_out.add if skip_bad else None)
    with output.whole_file(out) as beside, closing(output.Rows(beside, record)) as rows:
        for block in track(blocks, len(named), out.name, "images", lambda block: len(block.origins)):
            rows.add(block.origins, columns(model.predict(block.images)))
        left_out.tell(len(named))
    return rows.written


class LeftOut:
    """What was left out: why the first SHOWN were, and the number of all."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.number = 0

    def add(self, error: str) -> None:
        """Count one more."""
        self.number += 1
        if self.number <= SHOWN:
            self.first.append(error)

    def tell(self, of: int) -> None:
        """Name the first few, and how many `of` so many images it was. Raises DataError where that is everything."""
        for error in self.first:
            say(f"left out: {error}")
        if self.number > SHOWN:
            say(f"left out: {self.number} of {of} in all")
        if self.number == of:
            raise DataError(f"none of the {of} images can be used; the first: {self.first[0]}")
