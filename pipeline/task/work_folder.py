"""A folder on a claim, such as that of running checkpoints, looked at before anything heavy is imported or read: can it be written?

A fresh volume belongs to root, and Kubeflow gives no pod the group that would open it.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from model.atomic import temporary
from pipeline.errors import FolderError

REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def check(argv: Sequence[str]) -> None:
    """Check the folder of `--work` in a step's command line, if there is one. Raises FolderError."""
    if "--work" in argv[:-1]:
        check_writable(Path(argv[argv.index("--work") + 1]))


def check_writable(folder: Path) -> None:
    """Make and remove a file where the folder is or will be made. Raises FolderError with who owns what, and who this is.

    A disk that is full says so where something is written, with how much room it needs.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    trial = temporary(there / "trial")
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        if error.errno in REFUSALS:
            raise FolderError(_line(folder, there, str(error.strerror))) from error


def _line(folder: Path, there: Path, reason: str) -> str:
    owned = there.stat()
    owner = f"{there} is of user {owned.st_uid} and group {owned.st_gid}, mode {owned.st_mode & 0o7777:04o}"
    return (
        f"cannot write {folder}: {reason}; {owner}, and this is user {os.geteuid()}, group {os.getegid()}; give that group the "
        "right to write, on a cluster with pipeline/kubeflow/claim-job.yaml (docs/pods.md)"
    )
