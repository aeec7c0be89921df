"""prepare: images from their source into the one on-disk format.

Official splits are kept; missing ones are cut from train. Images pass through one at a time, so memory does not grow with the set.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from components.common import artifact
from components.common.errors import SettingsError
from components.common.progress import say, track
from components.common.settings import DataSettings
from data import npy_stream, sources, splits
from data.errors import DataError
from data.format import SPLITS, DatasetInfo, SplitName, write_info
from data.transform import fit


def run(data_settings: DataSettings, out: Path) -> None:
    """Write the dataset artifact. Raises DataError for unusable data, SettingsError for a set the source does not know."""
    found = _load(data_settings)
    chosen, notes = splits.choose(
        {name: part.labels for name, part in found.parts.items()},
        data_settings.val_fraction,
        data_settings.test_fraction,
        data_settings.seed,
    )
    if data_settings.limit is not None:
        chosen = {name: splits.Choice(choice.part, choice.rows[: data_settings.limit]) for name, choice in chosen.items()}
        notes.append(f"limited to the first {data_settings.limit} images of each split")
    for note in notes:
        say(f"prepare: {note}")

    with artifact.create(out, "dataset", {}) as folder:
        shapes = {}
        for name in reversed(SPLITS):  # the small ones first: what is wrong with them shows early
            choice, part = chosen[name], found.parts[chosen[name].part]
            (folder / name).mkdir()
            images = track(_picked(part, choice.rows, data_settings), len(choice.rows), f"prepare: {name}", "images")
            shapes[name] = npy_stream.write(folder / name / "images.npy", images, len(choice.rows))
            np.save(folder / name / "labels.npy", part.labels[choice.rows], allow_pickle=False)
        _check_equal(shapes)
        write_info(
            folder,
            DatasetInfo(
                name=found.name,
                source=found.source,
                licence=found.licence,
                task=found.task,
                class_names=found.class_names,
                image_shape=list(shapes["train"]),
                counts={name: len(chosen[name].rows) for name in SPLITS},
                notes=found.notes + notes,
            ),
        )


def _load(settings: DataSettings) -> sources.ImageSet:
    path = None if settings.path is None else Path(settings.path).expanduser()
    name = settings.name
    if path is not None and settings.source in ("npz", "folder") and name == DataSettings().name:
        name = path.resolve().stem  # left at its default, which names the bundled digits
    request = sources.Request(name, path, settings.image_size, settings.channels, settings.licence)
    try:
        return sources.load(settings.source, request)
    except sources.UnsupportedRequest as error:
        raise SettingsError(str(error)) from error


def _picked(part: sources.Part, rows: splits.Rows, settings: DataSettings) -> Iterator[sources.Image]:
    """The images of `part` at the ascending `rows`, in the size and channels asked for; reading ends with the last of them."""
    wanted = iter(rows.tolist())
    row = next(wanted, None)
    for index, image in enumerate(part.images()):
        if row is None:
            return
        if index == row:
            yield fit(image, settings.image_size, settings.channels)
            row = next(wanted, None)


def _check_equal(shapes: Mapping[SplitName, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) > 1:
        text = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
        raise DataError(f"the images of the splits differ in shape ({text}); set data.image_size or data.channels")
