"""Artifacts: folders that are whole or absent.

An artifact is written beside its final place, fsynced, given its `manifest.json` last, and renamed. The manifest holds the
kind, the sha256 and size of every file, and the fingerprints of what it was made from. It holds no time, host name or
absolute path: the same inputs give the same bytes, which is what lets DVC and Kubeflow compare runs.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.common.errors import ArtifactError

FORMAT = 1
MANIFEST = "manifest.json"


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


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON text that depends on the value alone: sorted keys, fixed indentation, no NaN."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: Any) -> str:
    """Hex sha256 of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as canonical JSON."""
    path.write_text(canonical_json(value), "utf-8")


@contextmanager
def create(out: Path, kind: str, made_from: Mapping[str, str]) -> Iterator[Path]:
    """Give a folder to write into; on success seal it and rename it to `out`, on failure remove it.

    `made_from` maps a name ("dataset", "model", ...) to the fingerprint of what was used. An artifact that already stands at
    `out` is replaced only once the new one is whole. Raises OSError where the place cannot be written.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        _seal(beside, kind, made_from)
        _swap(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read(path: Path, kind: str, *, check: bool = True) -> Artifact:
    """Read the artifact at `path` and check every file against its manifest.

    Raises ArtifactError when it is missing, unfinished, of another kind or format, or any file differs.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise ArtifactError(f"no {kind} artifact at {path}: it has no {MANIFEST}; run the step that makes it again")
    raw = manifest_path.read_bytes()
    try:
        manifest = json.loads(raw)
        found, version, files = manifest["kind"], manifest["format"], manifest["files"]
        made_from = dict(manifest["made_from"])
        listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"damaged manifest {manifest_path} ({error!r}); run the step that makes it again") from error
    if found != kind:
        raise ArtifactError(f"{path} is a {found} artifact where a {kind} artifact is needed; check the paths given")
    if version != FORMAT:
        raise ArtifactError(f"{path} has artifact format {version}, this version reads {FORMAT}; make it again")
    if check:
        _check_files(path, listed)
    return Artifact(path, kind, made_from, hashlib.sha256(raw).hexdigest())


def _check_files(path: Path, listed: Mapping[str, tuple[str, int]]) -> None:
    there = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()} - {MANIFEST}
    if there != set(listed):
        odd = sorted(there ^ set(listed))[0]
        what = "is listed but missing" if odd in listed else "is there but not listed"
        raise ArtifactError(f"damaged artifact {path}: {odd} {what} in {MANIFEST}; run the step that makes it again")
    for name, (expected, size) in sorted(listed.items()):
        file = path / name
        if file.stat().st_size != size or sha256(file) != expected:
            raise ArtifactError(
                f"damaged artifact {path}: {name} does not match its sha256 in {MANIFEST}; run the step that makes it again"
            )


def _seal(folder: Path, kind: str, made_from: Mapping[str, str]) -> None:
    """Write the manifest, with every byte that it vouches for on disk first."""
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        _fsync(file)
        files[str(file.relative_to(folder))] = {"sha256": sha256(file), "bytes": file.stat().st_size}
    write_json(folder / MANIFEST, {"kind": kind, "format": FORMAT, "files": files, "made_from": dict(made_from)})
    _fsync(folder / MANIFEST)
    _fsync(folder)


def _swap(beside: Path, out: Path) -> None:
    """Put `beside` at `out`. A folder cannot be renamed over a full one, so the old one steps aside first."""
    aside = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.exists():
        out.rename(aside)
    beside.rename(out)
    _fsync(out.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
