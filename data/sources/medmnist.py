"""MedMNIST v2's 2-D sets by flag and size, from its own npz files, with the MD5 that medmnist itself does not check.

medmnist's table (MD5, licence, task, class names) is used; its loader is not: that holds a whole split in memory. Importing
medmnist takes seconds and makes `~/.medmnist`, so it is imported here and nowhere else.
"""

import hashlib
from pathlib import Path
from typing import Any

from data import labels as lb
from data.errors import DataError, UnsupportedRequest
from data.sources import ImageSet, Request
from data.sources.network import impatient
from data.sources.npz import read_parts

SIZES = (28, 64, 128, 224)


def load(request: Request) -> ImageSet:
    """The set `request.name` at `request.image_size` (null = 28). Raises DataError when its file is neither there nor to be had."""
    info = _info(request)
    suffix = "" if request.image_size in (None, 28) else f"_{request.image_size}"
    file = request.path / f"{request.name}{suffix}.npz"
    url, md5 = info["url" + suffix], info["MD5" + suffix]
    if not file.is_file():
        _download(url, file, md5)
    found = _md5(file)
    if found != md5:
        raise DataError(f"{file} has MD5 {found} where MedMNIST's is {md5}: it is damaged or another file; fetch {url} again")
    parts, names = read_parts(file), [info["label"][key] for key in sorted(info["label"], key=int)]
    lb.check_range({split: part.labels for split, part in parts.items()}, len(names), info["task"], str(file))
    notes = [f"{file.name}, MD5 {md5} checked"]
    return ImageSet(request.name, "medmnist", info["license"], info["task"], names, parts, notes)


def _info(request: Request) -> dict[str, Any]:
    from medmnist import INFO

    flat = [flag for flag in INFO if not flag.endswith("3d")]
    if request.name not in flat:
        why = "is a set of 3-D images" if request.name in INFO else "is no MedMNIST flag"
        raise UnsupportedRequest(f"data.name {request.name!r} {why}: use one of {', '.join(flat)}")
    if request.image_size not in (None, *SIZES):
        raise UnsupportedRequest(f"data.image_size {request.image_size} is no MedMNIST size: use {', '.join(map(str, SIZES))}")
    found: dict[str, Any] = INFO[request.name]
    return found


def _download(url: str, file: Path, md5: str) -> None:
    """Fetch the file the way medmnist does, but under another name until its MD5 is right."""
    from torchvision.datasets.utils import download_url

    part = file.with_name(f".{file.name}.part")
    try:
        with impatient():
            download_url(url, file.parent, part.name, md5)
        part.rename(file)
    except Exception as error:  # the network, the disk and torchvision each have their own kinds
        part.unlink(missing_ok=True)
        raise DataError(
            f"no {file.name} in {file.parent} and it cannot be downloaded ({error}): put {file.name} (MD5 {md5}) from {url} "
            f"into {file.parent}, or set data.path to the folder that has it"
        ) from error


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
