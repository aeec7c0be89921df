"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere. All of it on stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PLAIN_EVERY_S = 10.0


def say(message: str) -> None:
    """One plain line for whoever is watching."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, what: str, unit: str = "it", size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """Yield `items`, showing how far, how fast and how long still; `total` is the number of items, each of which counts `size`."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit=unit, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(size(item))
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last >= PLAIN_EVERY_S or done == total:
            rate = done / max(now - start, 1e-9)
            shown = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
            say(f"{what}: {done}/{total} {unit}, {shown} {unit}/s, {(total - done) / rate:.0f} s left")
            last = now
