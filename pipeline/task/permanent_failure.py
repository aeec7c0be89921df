"""A failure that no retry can cure, remembered in a file: the next try ends at once, in the same way."""

import json
from pathlib import Path

from model.atomic import write_whole

CODES = (2, 3, 4, 5)
"""Bad settings, bad data, a gate's no, a training that went wrong by itself: the next try would end in the same way."""
VARIABLE = "DIER_PERMANENT_FAILURE"
"""Environment variable with the file, for a step whose exit code nobody can read: the launcher of many nodes turns all into 1."""


def remember(file: Path, code: int) -> None:
    """Write `code` to `file` if it is one of `CODES`; after a success nothing stays. Several processes may do so at once."""
    if code in CODES:
        write_whole(file, json.dumps({"code": code}))
    elif code == 0:
        file.unlink(missing_ok=True)


def recall(file: Path) -> int | None:
    """The remembered exit code; None where there is none."""
    try:
        return int(json.loads(file.read_text("utf-8"))["code"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or one that says nothing: trying again is safe
        return None
