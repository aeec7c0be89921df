"""A failure that no retry can cure, remembered in a file: the next try ends at once, in the same way."""

import json
from pathlib import Path

from model.atomic import write_whole

CODES = (2, 3, 4)
"""Bad settings, bad data, a gate's no: the next try would end in the same way."""
VARIABLE = "DIER_SETTLED"
"""Environment variable with the file, for a step whose exit code nobody can read: the launcher of many nodes turns all into 1."""


def remember(file: Path, code: int) -> None:
    """Write `code` to `file` if it is one of `CODES`. Several processes may do so at once."""
    if code in CODES:
        write_whole(file, json.dumps({"code": code}))


def recall(file: Path) -> int | None:
    """The remembered exit code; None where there is none."""
    try:
        return int(json.loads(file.read_text("utf-8"))["code"])
    except FileNotFoundError:
        return None
