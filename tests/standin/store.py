"""The object store: a folder a bucket, and what each task moved to and from it."""

import os
import re
import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.standin.errors import LauncherError

URI = re.compile(r"^(gs|s3|minio)://([^/?]+)(?:/([^?]*))?(?:\?.*)?$")


@dataclass
class Traffic:
    """Bytes and files of one task, all its tries together."""

    downloaded: int = 0
    uploaded: int = 0
    files: int = 0


class Store:
    """All buckets; schemes are ways to the same store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.traffic: dict[str, Traffic] = defaultdict(Traffic)
        self._lock = threading.Lock()

    def path(self, uri: str) -> Path:
        """Where an object, or all below a key, lies on this machine."""
        found = URI.match(uri)
        if not found:
            raise LauncherError(f"failed to parse bucketConfig for output artifact with uri {uri}: unrecognized storage scheme")
        return self.root / found[2] / (found[3] or "").strip("/")

    def upload(self, local: Path, uri: str, task: str) -> None:
        """A file, or every file below a folder; no empty folders. KFP 2.17.0 backend/src/v2/objectstore/object_store.go:111.

        Raises FileNotFoundError where nothing is there.
        """
        if not local.exists():
            raise FileNotFoundError(local)
        for file in [local] if local.is_file() else sorted(one for one in local.rglob("*") if one.is_file()):
            self._copy(file, self.path(uri) / file.relative_to(local), task, "uploaded")

    def download(self, uri: str, local: Path, task: str, owner: tuple[int, int] | None = None) -> None:
        """Every object below the key; none at all is no error. KFP 2.17.0 backend/src/v2/objectstore/object_store.go:176."""
        source = self.path(uri)
        if not source.exists():
            return
        for file in [source] if source.is_file() else sorted(one for one in source.rglob("*") if one.is_file()):
            target = local / file.relative_to(source)
            folders(target.parent, owner)  # KFP 2.17.0 backend/src/v2/objectstore/object_store.go:247: 0755, whatever the umask
            self._copy(file, target, task, "downloaded")
            target.chmod(0o666)  # KFP 2.17.0 backend/src/v2/objectstore/object_store.go:251: os.Create with umask 0
            if owner:
                os.chown(target, *owner)

    def _copy(self, source: Path, target: Path, task: str, way: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        with self._lock:
            traffic = self.traffic[task]
            setattr(traffic, way, getattr(traffic, way) + target.stat().st_size)
            traffic.files += 1


def folders(folder: Path, owner: tuple[int, int] | None = None) -> None:
    """Make a folder and those above it, as the launcher's user makes them."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        one.chmod(0o755)
        if owner:
            os.chown(one, *owner)


def local_path(uri: str) -> str:
    """Where a pod sees an artifact. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1239."""
    for scheme, folder in (("gs://", "/gcs/"), ("minio://", "/minio/"), ("s3://", "/s3/")):
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    raise LauncherError(f"failed to generate local path for URI {uri}: unsupported storage scheme")


def output_uri(root: str, *parts: str) -> str:
    """KFP 2.17.0 backend/src/v2/metadata/client.go:391."""
    return "/".join([root.partition("?")[0].rstrip("/"), *parts])
