"""Files and folders that are whole, absent, or known to be damaged: written beside, fsynced, given a manifest last, renamed."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
LATER = "when read"
LEFTOVER = re.compile(r"\.(?P<name>.+)\.(partial|old)-[0-9a-f]{32}")
"""Names of temporaries: one that a killed process left is told from everything else by its name."""
IDLE_S = 86400.0
"""A temporary that has not changed for so long is nobody's."""


@dataclass(frozen=True)
class Manifest:
    """What a sealed folder says of itself; `digest` is the sha256 of the manifest's bytes, so it covers every file."""

    content: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]
    digest: str
    later: frozenset[str] = frozenset()
    """Files whose sha256 is checked by whoever reads them, when they do."""


def canonical_json(value: Any) -> str:
    """JSON text that depends on the value alone: sorted keys, fixed indentation, no NaN."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each of whose names is on disk before anything goes into it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)


def temporary(path: Path, kind: str = "partial") -> Path:
    """A name beside `path` that no other process has, on this machine or another one that shares the disk."""
    return path.with_name(f".{path.name}.{kind}-{uuid.uuid4().hex}")


def changed_at(path: Path) -> float:
    """When anything in a file or folder last changed, Unix time in seconds. Links count as such and are not followed."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [part.lstat().st_mtime for part in (path, *inside)]
    return max(times)


def leftovers(folder: Path, name: str | None = None, idle_s: float = IDLE_S) -> list[Path]:
    """Temporaries in `folder` (of the file or folder `name` only) in which nothing has changed for `idle_s` seconds."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = LEFTOVER.fullmatch(path.name)
        if match and name in (None, match["name"]):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - changed_at(path) >= idle_s:
                    found.append(path)
    return sorted(found)


def write_whole(file: Path, text: str) -> None:
    """Write `text` beside `file` and rename it, so that nobody reads a half; the folder is made if need be.

    Several processes, on several machines too, may write the same file at once: one of the texts stays. Raises OSError; then what
    stood there before still does. What is no file, such as /dev/stdout, is written to, since a rename would replace it.
    """
    if file.exists() and not file.is_file():
        file.write_text(text, "utf-8")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = temporary(file)
    try:
        beside.write_text(text, "utf-8")
        fsync(beside)
        beside.replace(file)
    except BaseException:  # Ctrl-C too
        beside.unlink(missing_ok=True)
        raise


def seal(folder: Path, known: Mapping[str, str] = MappingProxyType({}), **content: Any) -> None:
    """Write the manifest: `content`, and size and sha256 of every file in `folder`, each of which is on disk before.

    `known` maps large files, which whoever reads them checks, to their sha256: they are hashed neither here, nor by `check_files`
    unless it is asked to. Each file gets the mode that the umask gives to the others: safetensors makes its own readable by their
    owner alone.
    """
    files: dict[str, dict[str, Any]] = {}
    mode = folder.stat().st_mode & 0o666
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.stat().st_mode & 0o666 != mode:
            with contextlib.suppress(OSError):  # a file system without modes
                file.chmod(mode)
        fsync(file)
        name = file.relative_to(folder).as_posix()
        files[name] = {"bytes": file.stat().st_size, "sha256": known.get(name) or sha256(file)}
        if name in known:
            files[name]["checked"] = LATER
    (folder / MANIFEST).write_text(canonical_json({"format": FORMAT, "files": files} | content), "utf-8")
    fsync(folder / MANIFEST)
    fsync(folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a sealed folder. Raises ValueError with a few words where there is none, or none that can be read."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        content = json.loads(raw)
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
        later = frozenset(name for name, entry in content["files"].items() if entry.get("checked") == LATER)
        version = content["format"]
    except FileNotFoundError:
        raise ValueError(f"it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"its {MANIFEST} is no manifest") from None
    if version != FORMAT:
        raise ValueError(f"its format is {version!r}, this version reads {FORMAT}")
    return Manifest(content, files, hashlib.sha256(raw).hexdigest(), later)


def check_files(folder: Path, manifest: Manifest, whole: bool = True) -> None:
    """Raises ValueError, in a few words, for the first file that is not what the manifest says.

    Unless `whole`, of files that are checked when they are read the sizes alone are looked at.
    """
    for name, (size, digest) in sorted(manifest.files.items()):
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{name} is listed in {MANIFEST} but missing")
        if file.stat().st_size != size:
            raise ValueError(f"{name} does not match its sha256 in {MANIFEST}: {file.stat().st_size} bytes instead of {size}")
        if (whole or name not in manifest.later) and sha256(file) != digest:
            raise ValueError(f"{name} does not match its sha256 in {MANIFEST}")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder's files to a new one, with the modes that new files have here: who may read the source says nothing of it."""
    target.mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        beside = target / path.relative_to(source)
        if path.is_dir():
            beside.mkdir()
        else:
            shutil.copyfile(path, beside)


def put_in_place(beside: Path, final: Path) -> None:
    """Rename the folder `beside` to `final`. A folder cannot be renamed over a full one, so what stands there steps aside first.

    Several processes may do so at once: one of the folders stays.
    """
    while True:
        aside = temporary(final, "old")
        with contextlib.suppress(FileNotFoundError):
            final.rename(aside)
        try:
            beside.rename(final)
            fsync(final.parent)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise  # else another process was faster
        finally:
            shutil.rmtree(aside, ignore_errors=True)
