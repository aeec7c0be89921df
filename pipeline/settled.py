"""A failure that no retry can cure, remembered in a file: the next try ends at once, in the same way."""

import json
import uuid
from pathlib import Path

CODES = (2, 3, 4)
"""Bad settings, bad data, a gate's no: the next try would end in the same way."""
VARIABLE = "DIER_SETTLED"
"""Environment variable with the file, for a step whose exit code nobody can read: the launcher of many nodes turns all into 1."""


def remember(file: Path, code: int) -> None:
    """Write `code` to `file` if it is one of `CODES`. Several processes may do so at once."""
    if code not in CODES:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    beside.write_text(json.dumps({"code": code}), "utf-8")
    beside.replace(file)


def recall(file: Path) -> int | None:
    """The remembered exit code; None where there is none."""
    try:
        return int(json.loads(file.read_text("utf-8"))["code"])
    except FileNotFoundError:
        return None
