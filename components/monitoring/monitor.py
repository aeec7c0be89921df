"""`dier monitor`: new images beside those that a registered model was trained on, as a folder with a page, numbers, and a verdict.

They drift where the two-sample test in embedding space says so, or an expectation on pixels of severity error fails (decision.py).
Of the training images the version carries embeddings alone (components/probing/reference.py). Images are read and embedded a block
at a time; kept are a sample for the test, the images shown, and a row of numbers an image.
"""

import heapq
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load_file

from components.common import artifact
from components.common.errors import SettingsError
from components.common.gates import check_monitoring
from components.common.progress import say, track
from components.inference import output
from components.inference.embed_images import LeftOut
from components.inference.registered_model import RegisteredModel, load
from components.monitoring import page, two_sample
from components.monitoring.decision import check_alpha, decide, part
from components.monitoring.pixels import expectations, p_values
from components.probing.reference import MEASURES
from components.registry import package
from components.validation.suite import Outcome
from data.named_images import Block, NamedImages, Origin
from data.quality.statistics import SCHEMA, block_statistics
from model.atomic import write_whole

SHOWN = 24
"""Images on the page, the most unlike ones."""
SEED = 0


@dataclass(frozen=True)
class Unlike:
    """An image beside its distance from the reference; the larger the more unlike."""

    distance: float
    origin: Origin
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """What was gone through: every image's distance and statistics, and the images and embeddings that were kept."""

    distances: npt.NDArray[np.float32]
    statistics: pa.Table
    origins: list[Origin]
    unlike: list[Unlike]
    sample: npt.NDArray[np.float32]


def monitor(
    model: str,
    images: Sequence[Path],
    out: Path,
    *,
    alpha: float,
    sample: int,
    fit: bool,
    arrays: Sequence[str],
    skip_bad: bool,
    report_only: bool,
    page_file: Path | None,
) -> None:
    """Write the monitoring artifact: monitor.json, images.parquet (a row an image) and index.html, which `page_file` gets too.

    Raises Drifted after that where the images drift, unless `report_only`; SettingsError for an alpha out of range and for a model
    that is not there or carries no reference that new images can be held to; DataError for images that cannot be used.
    """
    check_alpha(alpha)
    loaded = load(model)
    kept, neighbours = _reference(loaded)
    left_out = LeftOut()
    with artifact.create(out, "monitoring", {"model": loaded.weights}) as folder:
        named = NamedImages(images, loaded.shape, fit=fit, arrays=arrays)
        seen = _see(loaded, named, neighbours, sample, left_out if skip_bad else None, folder)
        left_out.tell(len(named))
        test = two_sample.compare(seen.sample, kept["embedding"], SEED)
        p = {"embeddings": test.p, **p_values({name: seen.statistics[name].to_numpy() for name in MEASURES}, kept)}
        outcomes = expectations(seen.statistics, kept, lambda row: page.name(seen.origins[row]), alpha)
        beyond = float((seen.distances > neighbours.limit).mean())
        reasons = _reasons(p, alpha, outcomes)
        found = {
            "model": loaded.record(),
            "images": len(seen.origins),
            "left_out": left_out.number,
            "drifted": bool(reasons),
            "reasons": reasons,
            "alpha": alpha,
            "decided_by": {name: {"p": float(f"{value:.6g}"), "alpha": round(part(alpha), 6)} for name, value in p.items()},
            "test": {**asdict(test), "sample": len(seen.sample), "reference": len(kept["embedding"]), "seed": SEED},
            "unlike": {
                "share": round(beyond, 6),
                "of_training": two_sample.SHARE,
                "limit": round(neighbours.limit, 6),
                "neighbour": two_sample.NEIGHBOUR,
            },
            "expectations": [asdict(outcome) for outcome in outcomes],
        }
        artifact.write_json(folder / "monitor.json", found)
        html = page.page(found, loaded.shown, seen.unlike, seen.distances, neighbours)
        (folder / "index.html").write_text(html, "utf-8")
    if page_file is not None:
        write_whole(page_file, html)
    if report_only:
        say(f"{out}: {'; '.join(reasons) or 'no drift'}")
    else:
        check_monitoring(out)


def _reference(model: RegisteredModel) -> tuple[dict[str, npt.NDArray[Any]], two_sample.Neighbours]:
    """What the version carries of its training images, and their distances."""
    file = model.files / package.REFERENCE
    kept: dict[str, npt.NDArray[Any]] = load_file(file) if file.is_file() else {"embedding": np.empty((0, 0))}
    count = len(kept["embedding"])
    if count <= two_sample.NEIGHBOUR:
        raise SettingsError(
            f"{model.shown} carries {count or 'no'} embeddings of its training images, too few to compare with: set "
            "probe.reference, to 2000 say, probe again and register"
        )
    try:
        return kept, two_sample.Neighbours(kept["embedding"])
    except ValueError as error:
        raise SettingsError(f"{model.shown} cannot be held to its training images: {error}; train anew, or name another") from error


def _see(
    model: RegisteredModel,
    named: NamedImages,
    neighbours: two_sample.Neighbours,
    size: int,
    left_out: LeftOut | None,
    folder: Path,
) -> Seen:
    """Go through the images once, and write their rows."""
    random = np.random.default_rng(SEED)
    distances, blocks, origins = [], [], list[Origin]()
    drawn: list[Any] = []  # a heap of (random number, row, embedding): those with the largest numbers
    unlike: list[Any] = []  # one of (distance, row, origin, image)
    each = named.blocks(left_out.add if left_out else None)
    with closing(output.Rows(folder / "images.parquet", model.record())) as rows:
        for block in track(each, len(named), "monitor", "images", lambda block: len(block.origins)):
            vectors = _embedding(model, block)
            far = neighbours.distances(vectors)
            rows.add(block.origins, {"distance": pa.array(far), "unlike": pa.array(far > neighbours.limit)})
            for n, (origin, priority) in enumerate(zip(block.origins, random.random(len(far)), strict=True)):
                row = len(origins) + n
                _keep(drawn, size, (float(priority), row), vectors[n])
                _keep(unlike, SHOWN, (float(far[n]), row, origin), block.images[n])
            distances.append(far)
            blocks.append(block_statistics(block.images))
            origins += block.origins
    if left_out and not origins:
        left_out.tell(len(named))
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0] if name != "hash"}
    hashes = pa.chunked_array([block["hash"] for block in blocks], pa.string()).combine_chunks()
    whole = {"split": pa.repeat("new", len(origins)), "index": np.arange(len(origins)), "label": pa.nulls(len(origins), pa.int64())}
    statistics = pa.table({**whole, **joined, "hash": hashes}, schema=SCHEMA)
    sample = np.stack([vector for _, _, vector in sorted(drawn, key=lambda one: one[1])])
    farthest = sorted(unlike, key=lambda one: (-one[0], one[1]))
    shown = [Unlike(distance, origin, image) for distance, _, origin, image in farthest]
    return Seen(np.concatenate(distances), statistics, origins, shown, sample)


def _embedding(model: RegisteredModel, block: Block) -> npt.NDArray[np.float32]:
    """(n, D). Raises SettingsError where they are no numbers: that is never the fault of images, which are bytes."""
    vectors = model.predict(block.images)["embedding"]
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        first = page.name(block.origins[bad[0]])
        raise SettingsError(f"{model.shown} gives {first} an embedding that is not finite: see if dier verify finds it damaged")
    return vectors


def _keep(heap: list[Any], most: int, key: tuple[Any, ...], array: npt.NDArray[Any]) -> None:
    """Keep the `most` largest, as (*key, array): a copy, made for those alone, as a view would hold its whole block in memory."""
    if len(heap) < most:
        heapq.heappush(heap, (*key, array.copy()))
    elif key > heap[0][:-1]:
        heapq.heapreplace(heap, (*key, array.copy()))


def _reasons(p: Mapping[str, float], alpha: float, outcomes: Sequence[Outcome]) -> list[str]:
    """Why the images drift; [] where they do not."""
    deciding, told = decide(p, alpha), []
    if "embeddings" in deciding:
        told.append(f"their embeddings are of another distribution than those trained on (MMD, p = {p['embeddings']:.2g})")
    return told + [each.message for each in outcomes if each.name in deciding]
