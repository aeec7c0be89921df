"""Energy that a training takes, where Linux tells: the processors' counters (RAPL), which powercap shows as files.

They are of whole processors, whatever else ran on them; GPUs, fans and losses are not in them. By default root alone may read them.
Fields: kernel.org, Documentation/power/powercap/powercap.rst.
"""

import time
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
MOST_W = 1000.0
"""More than one processor takes. A counter that could have gone round more than once at this power tells nothing."""


class Meter:
    """Joules from reading to reading."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._processors = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _text(zone / "name").startswith("package-")]
        self._last = self._read()

    def joules(self) -> float | None:
        """Since this was last asked, or else since the meter was made; None where that cannot be told."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        total, seconds = 0, self._last[0] - before[0]
        for old, new, most in zip(before[1], self._last[1], self._last[2], strict=True):
            if seconds * MOST_W * 1e6 > most:
                return None
            total += new - old if new >= old else new - old + most
        return total / 1e6

    def _read(self) -> tuple[float, list[int], list[int]] | None:
        """When, and of each processor its counter and where that goes round, in microjoules."""
        try:
            counters = [int(_text(zone / "energy_uj")) for zone in self._processors]
            ranges = [int(_text(zone / "max_energy_range_uj")) for zone in self._processors]
        except ValueError:
            return None
        return (time.monotonic(), counters, ranges) if counters else None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError:
        return ""
