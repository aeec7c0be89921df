"""Where a model comes from, as tags: commit, settings, lock file."""

import os
import subprocess
from pathlib import Path

from components.common.artifact import sha256

UNKNOWN = "unknown"
BUILT_FROM = "DIER_GIT_COMMIT"
"""Environment variable of the container image: the commit that it was built from."""


def provenance(folder: Path) -> dict[str, str]:
    """Git commit, whether the tree differed from it, and the digests of `params.yaml` and `dvc.lock` in `folder`.

    In a container the commit is the one that the image was built from.

    DVC rewrites dvc.lock after every stage, so that file does not count as a difference. What cannot be told is "unknown";
    a file that is not there has no tag.
    """
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    tags = {
        "dier.git_commit": _git(folder, "rev-parse", "HEAD") or os.environ.get(BUILT_FROM) or UNKNOWN,
        "dier.git_dirty": UNKNOWN if changes is None else str(bool(changes)).lower(),
    }
    for name in ("params.yaml", "dvc.lock"):
        if (folder / name).is_file():
            tags[f"dier.{name.replace('.', '_')}_sha256"] = sha256(folder / name)
    return tags


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
