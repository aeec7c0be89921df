"""`dier monitor`: new images beside those that a registered model was trained on, as a folder with a page, numbers, and a verdict.

They drift where the two-sample test in embedding space says so, or an expectation on pixels of severity error fails. Of the
training images the version carries embeddings alone (components/probing/reference.py). Images are read and embedded a block at a
time; kept are a sample for the test, the images shown, and a row of numbers an image.
"""

import heapq
from collections.abc import Sequence
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
from components.inference.embed_images import tell_left_out
from components.inference.registered_model import RegisteredModel, load
from components.monitoring import page, two_sample
from components.monitoring.pixels import expectations
from components.registry import package
from components.validation.suite import Outcome
from data.named_images import NamedImages, Origin
from data.quality.statistics import SCHEMA, block_statistics

SHOWN = 24
"""Images on the page, the most unlike ones."""
SEED = 0


@dataclass(frozen=True, order=True)
class Unlike:
    """An image beside its distance from the reference; the larger the more unlike."""

    distance: float
    row: int
    origin: Origin
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """What was gone through: every image's distance and statistics, and the images and embeddings that were kept."""

    distances: npt.NDArray[np.float32]
    statistics: pa.Table
    names: list[str]
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

    Raises Drifted after that where the images drift, unless `report_only`; SettingsError for a model that is not there or carries
    no reference, DataError for images that cannot be used.
    """
    loaded = load(model)
    kept = _reference(loaded)
    neighbours = two_sample.Neighbours(kept["embedding"])
    left_out: list[str] = []
    with artifact.create(out, "monitoring", {"model": loaded.weights}) as folder:
        named = NamedImages(images, loaded.shape, fit=fit, arrays=arrays)
        seen = _see(loaded, named, neighbours, sample, left_out if skip_bad else None, folder)
        tell_left_out(left_out, len(named))
        test = two_sample.compare(seen.sample, kept["embedding"], SEED)
        outcomes = expectations(seen.statistics, kept, seen.names)
        beyond = float((seen.distances > neighbours.limit).mean())
        reasons = _reasons(test, alpha, outcomes)
        found = {
            "model": loaded.record(),
            "images": len(seen.names),
            "left_out": len(left_out),
            "drifted": bool(reasons),
            "reasons": reasons,
            "test": {**asdict(test), "alpha": alpha, "sample": len(seen.sample), "reference": len(kept["embedding"]), "seed": SEED},
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
            page_file.parent.mkdir(parents=True, exist_ok=True)
            page_file.write_text(html, "utf-8")
    if report_only:
        say(f"{out}: {'; '.join(reasons) or 'no drift'}")
    else:
        check_monitoring(out)


def _reference(model: RegisteredModel) -> dict[str, npt.NDArray[Any]]:
    file = model.files / package.REFERENCE
    kept = load_file(file) if file.is_file() else {"embedding": np.empty((0, 0))}
    count = len(kept["embedding"])
    if count <= two_sample.NEIGHBOUR:
        raise SettingsError(
            f"{model.shown} carries {count or 'no'} embeddings of its training images, too few to compare with: set "
            "probe.reference, to 2000 say, probe again and register"
        )
    return kept


def _see(
    model: RegisteredModel,
    named: NamedImages,
    neighbours: two_sample.Neighbours,
    size: int,
    left_out: list[str] | None,
    folder: Path,
) -> Seen:
    """Go through the images once, and write their rows."""
    random = np.random.default_rng(SEED)
    distances, blocks, origins = [], [], list[Origin]()
    drawn: list[tuple[float, int, npt.NDArray[np.float32]]] = []  # a heap: the images with the largest of random numbers
    unlike: list[Unlike] = []
    each = named.blocks(left_out.append if left_out is not None else None)
    with closing(output.Rows(folder / "images.parquet", model.record())) as rows:
        for block in track(each, len(named), "monitor", "images", lambda block: len(block.origins)):
            vectors = model.predict(block.images)["embedding"]
            far = neighbours.distances(vectors)
            rows.add(block.origins, {"distance": pa.array(far), "unlike": pa.array(far > neighbours.limit)})
            for n, (origin, priority) in enumerate(zip(block.origins, random.random(len(far)), strict=True)):
                row = len(origins) + n
                _keep(drawn, (float(priority), row, vectors[n]), size)
                _keep(unlike, Unlike(float(far[n]), row, origin, block.images[n]), SHOWN)
            distances.append(far)
            blocks.append(block_statistics(block.images))
            origins += block.origins
    if not origins:
        tell_left_out(left_out or [], len(named))
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0] if name != "hash"}
    hashes = pa.chunked_array([block["hash"] for block in blocks], pa.string()).combine_chunks()
    whole = {"split": pa.repeat("new", len(origins)), "index": np.arange(len(origins)), "label": pa.nulls(len(origins), pa.int64())}
    statistics = pa.table({**whole, **joined, "hash": hashes}, schema=SCHEMA)
    sample = np.stack([vector for _, _, vector in sorted(drawn, key=lambda one: one[1])])
    shown = sorted(unlike, key=lambda one: (-one.distance, one.row))
    return Seen(np.concatenate(distances), statistics, [page.name(origin) for origin in origins], shown, sample)


def _keep(heap: list[Any], one: Any, most: int) -> None:
    """Keep the `most` largest."""
    if len(heap) < most:
        heapq.heappush(heap, one)
    else:
        heapq.heappushpop(heap, one)


def _reasons(test: two_sample.Discrepancy, alpha: float, outcomes: Sequence[Outcome]) -> list[str]:
    """Why the images drift; [] where they do not."""
    told = []
    if test.p <= alpha:
        told.append(f"their embeddings are of another distribution than those trained on (MMD, p = {test.p:g}, at most {alpha:g})")
    return told + [each.message for each in outcomes if each.severity == "error" and not each.passed]
