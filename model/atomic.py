"""Folders on disk that are whole or known to be damaged: fsync, a manifest written last, and what the disk's refusals mean."""

import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from .errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 1


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


def write_json(path: Path, value: Any) -> None:
    """Write JSON and wait for the disk. Python's floats come back bit for bit, and names in the order that they had."""
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    fsync(path)


def seal(folder: Path) -> None:
    """Write the manifest: size and sha256 of every file in `folder`, each of which is on disk already."""
    files = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files})
    fsync(folder)


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in a few words; None when every file is what its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            return f"its format is {manifest['format']!r}, this version reads {FORMAT}"
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is no manifest"
    for name, (size, expected) in sorted(listed.items()):
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if _sha256(file) != expected:
            return f"{name} does not match its sha256"
    return None


def refused(error: Exception, what: str, folder: Path, needed: int = 0) -> CheckpointError:
    """The disk said no: what could not be written, where, how much room it needs (bytes) and has, and what to do."""
    reason, number = _reason(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        reason += f" (it needs {_megabytes(needed)}, {_megabytes(_free(folder))} are free); make room there"
    else:
        reason += "; check that folder, its permissions and limits"
    return CheckpointError(
        f"cannot write {what} in {folder}: {reason}, then run the same command again: it goes on from the last whole checkpoint"
    )


def _reason(error: Exception) -> tuple[str, int]:
    """The system's words and number, which safetensors hands on in its text only."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno), error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return (os.strerror(int(found[1])), int(found[1])) if found else (" ".join(str(error).split()), 0)


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
