"""An artifact on a claim: the task that makes it leaves it there once, and others read it in place instead of a copy each."""

from pathlib import Path

from components.common import artifact
from components.common.progress import say
from model.atomic import write_whole


def keep(made: Path, kind: str, folder: Path, fingerprint_to: Path | None) -> None:
    """Copy the artifact `made` to `folder`/FINGERPRINT unless it is there, and write the fingerprint to `fingerprint_to`."""
    fingerprint = artifact.read(made, kind, check=False).fingerprint
    place = artifact.copy(made, folder / fingerprint, kind)
    if fingerprint_to is not None:
        write_whole(fingerprint_to, fingerprint)
    say(f"the {kind} is at {place}, for the tasks that read it there")
