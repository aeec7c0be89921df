"""prepare: images from their source into the one on-disk format.

Official splits are kept; missing ones are cut from train, in groups: copies and near-duplicates stay on one side, and so does what
`data.group` names. Images pass through in blocks, so memory does not grow with the set; for the search they lie on disk. Threads
decode them and write shards; what is written does not depend on how many. With `data.canvas` images are scattered as they are
written: splits, groups and the limit are of originals, so no copy leaks.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np

from components.common import artifact
from components.common.errors import SettingsError
from components.common.progress import say, track
from components.common.settings import DataSettings
from data import decoding, npy_stream, shard_writer, sources, splits
from data.errors import DataError, UnsupportedRequest
from data.format import SPLITS, DatasetInfo, SplitName, image_hash, write_info
from data.groups import Groups, joined
from data.quality import near_duplicates
from data.scatter import Scatter
from data.store import Store, open_store

MB = 10**6
SEARCHED, SEARCHED_BYTES = 1_000_000, 64 * 10**9
"""Images, and bytes of them, among which near-duplicates are looked for at most: comparing pixels takes 0.3 ms each (measured in
docs/data.md), and they lie on this disk meanwhile."""


def run(data_settings: DataSettings, out: Path) -> None:
    """Write the dataset artifact.

    Raises DataError for unusable data, SettingsError for what the source does not have, and what a store of shards says
    (StoreUnavailable, DataError) before anything is read.
    """
    store = open_store(data_settings.store) if data_settings.store is not None else None
    if store is not None:
        store.check()  # before the images are read, which may take an hour
    try:
        _write(_load(data_settings), data_settings, store, out)
    except UnsupportedRequest as error:
        raise SettingsError(str(error)) from error


def _load(settings: DataSettings) -> sources.ImageSet:
    path, name = Path(settings.path).expanduser(), settings.name
    if settings.source in ("npz", "folder") and name == DataSettings().name:
        name = path.resolve().stem  # left at its default, which names the bundled digits
    return sources.load(settings.source, sources.Request(name, path, settings.image_size, settings.channels, settings.licence))


def _write(found: sources.ImageSet, settings: DataSettings, store: Store | None, out: Path) -> None:
    known: dict[str, str] = {}
    with artifact.create(out, "dataset", {}, known) as folder:
        parts, notes = dict(found.parts), []
        groups: Groups | None = None
        if len(parts) < len(SPLITS) and len(parts["train"].labels):
            needed = _needed(parts, settings)
            parts["train"], groups, note = _grouped(needed, settings, found.source, folder / "train.npy")
            notes.append(note)
        elif settings.group is not None:
            notes.append("data.group changes nothing: every split is official")
        labels = {name: part.labels for name, part in parts.items()}
        fractions = settings.val_fraction, settings.test_fraction
        chosen, cuts = splits.choose(labels, *fractions, settings.seed, groups)
        notes += cuts
        if settings.limit is not None:
            chosen = {name: splits.Choice(choice.part, choice.rows[: settings.limit]) for name, choice in chosen.items()}
            notes.append(f"limited to the first {settings.limit} images of each split")
        for note in notes:
            say(f"prepare: {note}")

        shapes, occupancy = {}, None
        canvas, copies = settings.pasted()
        for name in reversed(SPLITS):  # the small ones first: what is wrong with them shows early
            scatter = None if canvas is None else Scatter(canvas, copies, settings.seed, name)
            part, rows = parts[chosen[name].part], chosen[name].rows
            shapes[name], digests = _write_split(folder / name, part, rows, settings, scatter, store)
            known |= {f"{name}/{shard}": digest for shard, digest in digests.items()}
            occupancy = None if scatter is None else round(scatter.occupancy, 6)  # in the end, train's
        (folder / "train.npy").unlink(missing_ok=True)
        _check_equal(shapes)
        shape, mb = shapes["train"], settings.shard_mb
        write_info(
            folder,
            DatasetInfo(
                name=found.name,
                source=found.source,
                licence=found.licence,
                task=found.task,
                class_names=found.class_names,
                image_shape=list(shape),
                counts={name: len(chosen[name].rows) * copies for name in SPLITS},
                notes=found.notes + notes + ([] if occupancy is None else [_scattered(settings, occupancy)]),
                shard_images=None if mb is None else shard_writer.images_a_shard(shape, mb * MB),
                store=settings.store,
                copies=copies,
                occupancy=occupancy,
            ),
        )


def _scattered(settings: DataSettings, occupancy: float) -> str:
    canvas, copies = settings.pasted()
    places = "one random place" if copies == 1 else f"{copies} random places"
    return (
        f"each image was pasted on a blank canvas of {canvas}x{canvas} at {places}, seed {settings.seed}, after "
        f"the splits were chosen; in train {occupancy:.1%} of a canvas is content"
    )


def _write_split(
    folder: Path, part: sources.Part, rows: splits.Rows, settings: DataSettings, scatter: Scatter | None, store: Store | None
) -> tuple[tuple[int, ...], dict[str, str]]:
    """Write images and labels at `rows`; return the shape of an image, and the sha256 of shards that lie in `folder`, by name."""
    folder.mkdir()
    images, labels = _images(part, rows, settings, f"prepare: {folder.name}"), part.labels[rows]
    if scatter is not None:
        labels = np.repeat(labels, scatter.copies, axis=0)
    if scatter is not None:
        images = scatter.pasted(images, rows)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    if settings.shard_mb is None:
        return npy_stream.write(folder / "images.npy", images, len(labels)), {}
    shape, shards = shard_writer.write(folder, store, images, labels, settings.shard_mb * MB)
    return shape, {} if store is not None else {shard.name: shard.sha256 for shard in shards}


def _images(part: sources.Part, rows: splits.Rows, settings: DataSettings, what: str) -> Iterator[decoding.Images]:
    """The images of `part` at the ascending `rows` in blocks, in the size and channels asked for, while their progress shows."""
    found = decoding.blocks(part, rows, settings.image_size, settings.channels, decoding.cores())
    return track(found, len(rows), what, "images", len)


def _needed(parts: Mapping[SplitName, sources.Part], settings: DataSettings) -> sources.Part:
    """train, which is to be cut: of its images twice as many as `data.limit` needs, so that the others need not be read."""
    part = parts["train"]
    if settings.limit is None:
        return part
    test = 0.0 if "test" in parts else settings.test_fraction
    val = 0.0 if "val" in parts else settings.val_fraction * (1 - test)
    smallest = min(share for share in (test, val, 1 - test - val) if share)
    return replace(part, labels=part.labels[: ceil(2 * settings.limit / smallest)])


def _grouped(part: sources.Part, settings: DataSettings, source: str, file: Path) -> tuple[sources.Part, Groups, str]:
    """A part that is to be cut, its images now in `file` if they were compared; the group of each (N,); a note on the groups."""
    count, notes = len(part.labels), []
    groups: Groups = np.arange(count)
    if settings.group is not None:
        if part.groups is None:
            raise UnsupportedRequest(f"data.group {settings.group!r}: images of the source {source} have no names; set it to null")
        named = part.groups(settings.group)[:count]
        groups = joined([groups, named])
        notes.append(f"data.group {settings.group!r} names {len(np.unique(named))}")
    distance = settings.near_duplicate_distance
    if distance > 0:
        most = _searched(part, settings)
        part, alike, searched = _compared(part, settings, file, most)
        groups = joined([groups, alike])
        sizes = np.bincount(alike)
        what = f"copies and near-duplicates (distance below {distance})" if searched else "copies"
        notes.append(f"{(sizes > 1).sum()} groups of {what} hold {sizes[sizes > 1].sum()} images")
        if not searched:
            notes.append(f"near-duplicates were not looked for among more than {most} images; data.group can name groups")
    sizes = np.bincount(groups)
    return part, groups, "; ".join([f"cut by group: {count} images in {len(sizes)} groups, the largest of {sizes.max()}", *notes])


def _searched(part: sources.Part, settings: DataSettings) -> int:
    """How many images of this size near-duplicates are looked for among at most, whatever form they are written in."""
    first = next(decoding.blocks(part, np.arange(1), settings.image_size, settings.channels, 1))
    return min(SEARCHED, SEARCHED_BYTES // int(first[0].nbytes))


def _compared(part: sources.Part, settings: DataSettings, file: Path, most: int) -> tuple[sources.Part, Groups, bool]:
    """A part, its images now in `file` if they fit; the groups of copies and near-duplicates (N,); whether these were looked for.

    A large set whose shards go to a store is read from its source again instead: no disk here may hold it.
    """
    count, number, copies = len(part.labels), dict[str, int](), list[int]()
    kept = settings.store is None or count <= most

    def hashed() -> Iterator[decoding.Images]:
        for block in _images(part, np.arange(count), settings, "prepare: read"):
            for index, image in enumerate(block, len(copies)):
                constant = image.min() == image.max()  # nobody's copy, as in validate
                copies.append(number.setdefault(str(index) if constant else image_hash(image), len(number)))
            yield block

    if kept:
        npy_stream.write(file, hashed(), count)
    else:
        deque(hashed(), maxlen=0)
    groups, first = np.unique(copies, return_index=True)
    searched = len(first) <= most
    if searched:
        if not kept:
            npy_stream.write(file, _images(part, first, settings, "prepare: read those without copies"), len(first))
        say(f"prepare: looking for near-duplicates among {len(first)} images")
        groups = near_duplicates.groups(npy_stream.Rows(file, first if kept else None), settings.near_duplicate_distance)
    if not kept:
        return part, groups[copies], searched
    written = npy_stream.Rows(file)
    return replace(part, images=written.__iter__, read=written.__getitem__), groups[copies], searched


def _check_equal(shapes: Mapping[SplitName, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) > 1:
        text = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
        raise DataError(f"the images of the splits differ in shape ({text}); set data.image_size or data.channels")
