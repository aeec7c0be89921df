"""Points of a training on disk, until MLflow has them: a file that only grows, and a note of how far MLflow acknowledged it.

`live.jsonl` holds one JSON line a point. A line is handed to the operating system before `append` returns, so it survives the end
of this process, SIGKILL included; it is forced to the disk (fsync) by the thread that sends, never by the one that trains. A line
that was cut off is ignored. `live.sent` says for which MLflow run how many bytes of it are acknowledged.
"""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from components.tracking.metrics import Point


@dataclass(frozen=True)
class Batch:
    """Some points in the order in which they came, and the place in the file where they end."""

    points: list[Point]
    end: int


class Spool:
    """The spool in `folder`, which is made if need be. A (name, step) that it holds already is not taken again.

    Raises OSError where the folder or its files cannot be used; `append` never does. `append` and the rest may be called from two
    threads, each from one.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "live.jsonl"
        self._sent_file = folder / "live.sent"
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        self._unwritten = b""
        self._seen: dict[int, set[str]] = {}
        last = b"\n"
        with self.path.open("rb") as opened:
            for last in opened:
                point = _parse(last)
                if point:
                    self._seen.setdefault(point.step, set()).update(map(sys.intern, point.values))
        if not last.endswith(b"\n"):  # its process was killed while it wrote; nothing is cut off here, another may be writing still
            os.write(self._file, b"\n")
        self._run, self.sent = self._read_sent()
        """The run that last took points, and the bytes of them that it acknowledged."""

    def append(self, point: Point) -> OSError | None:
        """Take the finite values of a point, but for those that are there. Gives the error where the disk refused it for now."""
        seen = self._seen.setdefault(point.step, set())
        values = {name: value for name, value in point.values.items() if name not in seen and math.isfinite(value)}
        seen.update(values)
        if values:
            line = json.dumps({"time": point.time, "step": point.step, "values": values}, separators=(",", ":"))
            self._unwritten += line.encode() + b"\n"
        return self.write()

    def write(self) -> OSError | None:
        """Hand to the operating system what it did not take before."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._file, self._unwritten) :]
        except OSError as error:
            return error
        return None

    def sync(self) -> None:
        """Wait until the disk has what was written."""
        os.fsync(self._file)

    def pending(self, run_id: str, limit: int) -> Batch | None:
        """The next points (at most `limit`) that this run has not acknowledged; None when there are none."""
        points, end = [], self.sent if run_id == self._run else 0
        for line in self._lines(end):
            end += len(line)
            point = _parse(line)
            if point:
                points.append(point)
                if len(points) == limit:
                    break
        return Batch(points, end) if points else None

    def acknowledge(self, run_id: str, end: int) -> None:
        """Remember that MLflow has everything up to `end`. Were this forgotten, MLflow would be asked what it has."""
        self._run, self.sent = run_id, end
        beside = self._sent_file.with_suffix(".partial")
        beside.write_text(json.dumps({"run": run_id, "bytes": end}) + "\n", "utf-8")
        beside.replace(self._sent_file)

    def waiting(self) -> int:
        """How many points no run has acknowledged."""
        return sum(_parse(line) is not None for line in self._lines(self.sent))

    def _lines(self, start: int) -> Iterator[bytes]:
        with self.path.open("rb") as opened:
            opened.seek(start)
            for line in opened:
                if line.endswith(b"\n"):
                    yield line

    def _read_sent(self) -> tuple[str, int]:
        try:
            sent = json.loads(self._sent_file.read_bytes())
            if 0 <= sent["bytes"] <= self.path.stat().st_size:  # a power cut may have taken the end of the file
                return str(sent["run"]), int(sent["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return "", 0


def _parse(line: bytes) -> Point | None:
    """A line as a point; None where it is damaged, such as one that was cut off."""
    try:
        row = json.loads(line)
        values: Mapping[str, float] = {str(name): float(value) for name, value in row["values"].items()}
        return Point(int(row["step"]), values, int(row["time"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
