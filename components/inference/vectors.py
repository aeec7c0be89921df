"""Embeddings on disk, to be searched: a Parquet file of `dier embed-images`, or a split of the embeddings artifact at one t.

Read a piece at a time; both have the columns `index` and `embedding`, and `index` counts from 0.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.embedding import store
from components.inference.output import METADATA
from components.inference.registered_model import RegisteredModel
from model.atomic import MANIFEST, check_files, read_manifest

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
FACTS = "embeddings.json"
SHOWN = ("file", "array", "row", "label")
"""Columns that say what a row is, where they are there."""


@dataclass(frozen=True)
class Vectors:
    """N embeddings of D numbers, by one model."""

    path: Path
    files: list[Path]
    source: dict[str, Any]
    """What an index of them is kept under, found without reading them: other embeddings have another one."""
    timesteps: list[int]
    weights: str | None
    """sha256 of the weights that made them; None in an artifact, which knows its model's fingerprint."""
    model_artifact: str | None
    version: str | None
    """`models:/NAME/VERSION` of the model, where that is known."""

    @cached_property
    def count(self) -> int:
        """N."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    @cached_property
    def width(self) -> int:
        """D."""
        return int(pq.read_schema(self.files[0]).field("embedding").type.list_size)

    def check(self) -> None:
        """Raises ArtifactError where files of an artifact are not what its manifest says: these alone, of all splits and t."""
        if self.model_artifact is not None:
            _check(self.path, *(file.relative_to(self.path).as_posix() for file in self.files))

    def pieces(self) -> Iterator[tuple[Ints, Floats]]:
        """Yield (index (n,), unit vectors (n, D)): cosines are products of these. A vector of zeros stays as it is."""
        for index, vectors in store.pieces(self.files):
            yield index, unit(vectors)

    def rows(self, wanted: Ints) -> Floats:
        """Unit vectors (n, D) of rows, in the order asked for. Raises SettingsError for a row that is not there."""
        if len(missing := wanted[(wanted < 0) | (wanted >= self.count)]):
            raise SettingsError(f"{self.path} has no row {missing[0]}: they go from 0 to {self.count - 1}")
        flat: Floats = self._take(wanted, ["embedding"])["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return unit(np.asarray(flat, np.float32).reshape(len(wanted), self.width))

    def described(self, wanted: Ints) -> list[dict[str, Any]]:
        """What each of these rows is: those of the columns SHOWN that are there."""
        names = [name for name in SHOWN if name in pq.read_schema(self.files[0]).names]
        found: list[dict[str, Any]] = self._take(wanted, names).to_pylist()
        return found

    def check_made_by(self, model: RegisteredModel) -> None:
        """Raises SettingsError unless these are embeddings of that model at its t: cosines across models mean nothing."""
        theirs = model.weights if self.weights is not None else model.tags.get("dier.model")
        own = self.weights or self.model_artifact
        if (own, self.timesteps) != (theirs, model.timesteps):
            raise SettingsError(
                f"{self.path} holds embeddings by the model {str(own)[:12]} at t = {_list(self.timesteps)}, and {model.shown} is "
                f"{str(theirs)[:12]} at t = {_list(model.timesteps)}: give the --model that made them, or --t"
            )

    def _take(self, wanted: Ints, names: list[str]) -> pa.Table:
        """Columns of rows, in the order asked for: only the row groups that hold one of them are read."""
        order, parts, start = np.argsort(wanted, kind="stable"), [], 0
        ascending = wanted[order]
        for file in self.files:
            with pq.ParquetFile(file) as opened:
                for group in range(opened.num_row_groups):
                    number = opened.metadata.row_group(group).num_rows
                    here = ascending[np.searchsorted(ascending, start) : np.searchsorted(ascending, start + number)]
                    if len(here):
                        parts.append(opened.read_row_group(group, columns=names).take(pa.array(here - start)))
                    start += number
        table = pa.concat_tables(parts) if parts else pq.read_schema(self.files[0]).empty_table().select(names)
        return table.take(pa.array(np.argsort(order, kind="stable")))


def open_vectors(path: Path, split: str | None, t: int | None) -> Vectors:
    """Open a Parquet file, or a folder of the embeddings artifact with the `split` and `t` to search.

    Raises SettingsError where these have to be given, or cannot be; ArtifactError for what is no such file or folder.
    """
    if path.is_dir():
        return _of_artifact(path, split, t)
    if split is not None or t is not None:
        raise SettingsError(f"{path} is a file of one set of images at one t: leave out --split and --t")
    try:
        schema = pq.read_schema(path)
        told = json.loads(schema.metadata[METADATA])
        known = {"weights": told["weights"], "model_artifact": None, "timesteps": told["t"]}
        version = f"models:/{told['model']}/{told['version']}" if told["model"] else None
        if not {"index", "embedding"} <= set(schema.names):
            raise KeyError("embedding")
    except FileNotFoundError:
        raise ArtifactError(f"no embeddings at {path}; dier embed-images writes them, or name a folder of the embed step") from None
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} holds no embeddings as dier embed-images writes them ({error}): make it again") from error
    # as make and rsync tell a file that was written again. Statistics of the columns, smallest and largest, would pass over one row
    # among many; a hash reads all of the file, which is what an index saves
    status = path.stat()
    source = {"record": told, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    return Vectors(path, [path], source, version=version, **known)


def unit(vectors: Floats) -> Floats:
    """Each row (n, D) at length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled


def _of_artifact(path: Path, split: str | None, t: int | None) -> Vectors:
    embedded = artifact.read(path, "embeddings", check=False)
    _check(path, FACTS)
    facts = embedded.json(FACTS)
    split, t = _choose(path, "split", split, facts["splits"]), _choose(path, "t", t, facts["timesteps"])
    source = {"fingerprint": embedded.fingerprint, "split": split, "t": t}
    files = store.files_of(path, split, t)
    if not files:
        raise ArtifactError(f"damaged artifact {path}: no embeddings of {split} at t = {t}; embed again")
    return Vectors(path, files, source, [t], None, embedded.made_from["model"], None)


def _check(folder: Path, *names: str) -> None:
    """Hold files of an artifact to its manifest."""
    manifest = read_manifest(folder)
    try:
        check_files(folder, replace(manifest, files={name: manifest.files[name] for name in names}))
    except KeyError as error:
        raise ArtifactError(f"damaged artifact {folder}: {error} is not listed in {MANIFEST}; embed again") from error
    except ValueError as error:
        raise ArtifactError(f"damaged artifact {folder}: {error}; embed again") from error


def _choose(path: Path, what: str, given: Any, there: Sequence[Any]) -> Any:
    if given is None and len(there) == 1:
        return there[0]
    if given not in there:
        why = f"no {what} {given}" if given is not None else f"more than one {what}"
        raise SettingsError(f"{path} has {why} (there are: {_list(there)}): give one with --{what}")
    return given


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
