"""Artifacts: folders that are whole or absent.

An artifact is written beside its final place, fsynced, given its `manifest.json` last, and renamed. The manifest holds the
kind, the sha256 and size of every file, and the fingerprints of what it was made from. It holds no time, host name or
absolute path: the same inputs give the same bytes, which is what lets DVC and Kubeflow compare runs.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from components.common.errors import ArtifactError
from model.atomic import (
    MANIFEST,
    Manifest,
    canonical_json,
    check_files,
    copy_folder,
    leftovers,
    put_in_place,
    read_manifest,
    seal,
    sha256,
    temporary,
)

__all__ = ["MANIFEST", "Artifact", "copy", "create", "digest", "read", "sha256", "write_json"]


@dataclass(frozen=True)
class Artifact:
    """An artifact that was read and checked."""

    path: Path
    kind: str
    made_from: dict[str, str]
    fingerprint: str
    """sha256 of the manifest's bytes: it covers every file, so two artifacts are equal when this is."""

    def json(self, name: str) -> Any:
        """The JSON document `name` inside the artifact."""
        return json.loads((self.path / name).read_text("utf-8"))


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as canonical JSON."""
    path.write_text(canonical_json(value), "utf-8")


@contextmanager
def create(out: Path, kind: str, made_from: Mapping[str, str], known: Mapping[str, str] = MappingProxyType({})) -> Iterator[Path]:
    """Give a folder to write into; on success seal it and rename it to `out`, on failure remove it.

    `made_from` maps a name ("dataset", "model", ...) to the fingerprint of what was used. `known`, which is read at the end, maps
    shards, which whoever reads them checks, to their sha256. An artifact that already stands at `out` is replaced only once the new
    one is whole. Several processes may make the same artifact at once, on machines that share a disk too: one of them stays. Raises
    OSError where the place cannot be written.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    for killed in leftovers(out.parent, out.name):
        shutil.rmtree(killed, ignore_errors=True)
    beside = temporary(out)
    beside.mkdir()
    try:
        yield beside
        seal(beside, known, kind=kind, made_from=dict(made_from))
        put_in_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read(path: Path, kind: str, *, check: bool = True, shards: bool = False) -> Artifact:
    """Read the artifact at `path` and check every file against its manifest.

    Of a dataset's shards the sizes are checked, and their sha256 too if `shards`: else `ShardedImages` does that as it reads them,
    so that a process reads no more than it needs. Raises ArtifactError when it is missing, unfinished, of another kind or
    format, or any file differs.
    """
    if not (path / MANIFEST).is_file():
        raise ArtifactError(f"no {kind} artifact at {path}: it has no {MANIFEST}; run the step that makes it again")
    try:
        manifest = read_manifest(path)
        found, made_from = manifest.content["kind"], dict(manifest.content["made_from"])
        if found == kind and check:
            _check(path, manifest, shards)
    except (ValueError, KeyError, TypeError) as error:
        what = error if isinstance(error, ValueError) else f"its {MANIFEST} has no kind or made_from"
        raise ArtifactError(f"damaged artifact {path}: {what}; run the step that makes it again") from error
    if found != kind:
        raise ArtifactError(f"{path} is a {found} artifact where a {kind} artifact is needed; check the paths given")
    return Artifact(path, kind, made_from, manifest.digest)


def copy(source: Path, target: Path, kind: str) -> Path:
    """Copy a whole artifact, beside and renamed; one that was copied there before and is whole is left.

    Raises ArtifactError for a damaged source. What is beside has a name of its own: pods on one claim share process ids, and a
    retry may overlap with the try before it.
    """
    wanted = read(source, kind, check=False).fingerprint
    with contextlib.suppress(ArtifactError):
        if read(target, kind, shards=True).fingerprint == wanted:
            return target
    beside = temporary(target)
    try:
        copy_folder(source, beside)
        read(beside, kind, shards=True)
        put_in_place(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _check(path: Path, manifest: Manifest, shards: bool) -> None:
    there = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} - {MANIFEST}
    if unknown := sorted(there - set(manifest.files)):
        raise ValueError(f"{unknown[0]} is there but not listed in {MANIFEST}")
    check_files(path, manifest, shards)
