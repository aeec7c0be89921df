"""Text files that are whole or absent."""

import uuid
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write `text` beside `file` and rename it, so that nobody reads a half; the folder is made if need be.

    Several processes, on several machines too, may write the same file at once: one of the texts stays. Raises OSError; then what
    stood there before still does. What is no file, such as /dev/stdout, is written to, since a rename would replace it.
    """
    if file.exists() and not file.is_file():
        file.write_text(text, "utf-8")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.partial-{uuid.uuid4().hex}")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(file)
    except BaseException:  # Ctrl-C too
        beside.unlink(missing_ok=True)
        raise
