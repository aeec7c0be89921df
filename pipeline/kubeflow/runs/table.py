"""Lists of a cluster as a plain table, one thing a line."""

from collections.abc import Sequence
from datetime import datetime


def table(head: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> str:
    """Columns as wide as what they hold; `nothing` is said instead of an empty table."""
    if not rows:
        return nothing
    lines = [head, *rows]
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def when(moment: datetime | None) -> str:
    """A time of the server, in UTC; it gives 1970 for what has not happened yet."""
    return "-" if moment is None or moment.timestamp() <= 0 else moment.strftime("%Y-%m-%d %H:%M")
