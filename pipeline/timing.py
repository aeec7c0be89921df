"""Wall-clock of each step, kept outside the artifacts: a time inside one would make two equal runs differ."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def timed(step: str, file: str | None) -> Iterator[None]:
    """Append the step's seconds to `file` (JSON lines) when one is asked for and the step succeeds."""
    start = time.perf_counter()
    yield
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "seconds": round(time.perf_counter() - start, 2)}) + "\n")
