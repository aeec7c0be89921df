"""What a process runs on and with, as a tag: of the run that trained, of the version that registered."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ENVIRONMENT_TAG = "dier.environment"
"""Of a run, and of a version: `environment` as JSON. Never in an artifact, which must not differ from machine to machine."""
IMAGE = "DIER_IMAGE"
"""Environment variable with the container image, by digest where whoever started the container knows it."""
COMMIT_TAG, DIRTY_TAG = "dier.git_commit", "dier.git_dirty"
"""Of the process's working folder: on a run where the training started, on a version where it was registered."""
BUILT_FROM = "DIER_GIT_COMMIT"
"""Environment variable of the container image: the commit that it was built from, with -dirty behind it where files differed."""
DIRTY = "-dirty"
UNKNOWN = "unknown"
PACKAGES = ("dier", "torch", "numpy", "mlflow", "safetensors", "scikit-learn")


def environment() -> dict[str, str]:
    """Container image, Python, system, processor, GPU, and the packages that make the numbers. No host name, user or path."""
    found = {
        "image": os.environ.get(IMAGE) or UNKNOWN,
        "python": platform.python_version(),
        "system": " ".join((platform.system(), *platform.libc_ver())).strip(),
        "machine": platform.machine(),
        "gpu": _gpu(),
    }
    return found | {package: _installed(package) for package in PACKAGES}


def _gpu() -> str:
    """Its name, or none. PyTorch is not imported for it: where it is not there nothing ran on a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def read_json(tag: str | None) -> dict[str, Any]:
    """What a tag holds; {} where it is not there, or no JSON object: whoever may write there may write anything."""
    try:
        return dict(json.loads(tag or "{}"))
    except (ValueError, TypeError):
        return {}


def git_tags(folder: Path) -> dict[str, str]:
    """The commit that `folder` stands at, and whether its files differ from it; "unknown" where that cannot be told.

    In a container the commit is the one that the image was built from. dvc.lock does not count: DVC rewrites it after each stage.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        built = os.environ.get(BUILT_FROM) or UNKNOWN
        return {COMMIT_TAG: built.removesuffix(DIRTY), DIRTY_TAG: "true" if built.endswith(DIRTY) else UNKNOWN}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return {COMMIT_TAG: commit, DIRTY_TAG: UNKNOWN if changes is None else str(bool(changes)).lower()}


def _git(folder: Path, *command: str) -> str | None:
    """Git's answer, or None where there is no git or no repository."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *command],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
