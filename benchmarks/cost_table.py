"""Cost against size as Markdown: a row a step and size, then how each cost grows, as an exponent of the number of images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""What benchmarks/cost.py writes: form, images, step, and the fields of `process_cost.Cost`."""

LIMIT = 1.1
"""An exponent above this is marked."""
QUANTITIES = {"seconds": 1.0, "cpu_seconds": 1.0, "memory": 32 * 2**20, "anonymous": 32 * 2**20, "bytes": 2**20}
"""What grows, and how much of it is noise: less is no growth."""
MEANING = """Exponents. all: the slope of log cost over log images, start-up included. last: the same between the two largest sizes.
net: the p of a + b images^p, through the smallest and the two largest sizes, which takes start-up (a) out of it; 1 where an image
more always costs the same. -: it grows by no more than noise. **Bold**: above 1.1."""


def exponents(sizes: Sequence[int], costs: Sequence[float], noise: float) -> tuple[float | None, float | None, float | None]:
    """(all, last, net) as MEANING says, of costs at ascending sizes; None where there is nothing to tell."""
    if len(sizes) < 2 or costs[-1] - costs[0] <= noise or min(costs) <= 0:
        return None, None, None
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle = sum(x) / len(x)
    whole = sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    net = None
    if len(sizes) > 2 and (grown := costs[-2] - costs[0]) > noise:
        net = _power(sizes[0], sizes[-2], sizes[-1], (costs[-1] - costs[0]) / grown)
    return whole, last, net


def _power(small: int, middle: int, large: int, ratio: float) -> float:
    """The p with (large^p - small^p) / (middle^p - small^p) = ratio, which rises with p; within 0.001 and 5."""
    low, high = 0.001, 5.0
    for _ in range(40):
        p = (low + high) / 2
        if (large**p - small**p) / (middle**p - small**p) < ratio:
            low = p
        else:
            high = p
    return low


def table(rows: Sequence[Row]) -> str:
    """The two tables of each form; of a step that was measured again the last row counts."""
    latest = {(row["form"], row["step"], row["images"]): row for row in rows}
    parts = []
    for form in dict.fromkeys(row["form"] for row in rows):
        here = [row for row in latest.values() if row["form"] == form]
        parts.append(f"### {form}\n\n{_costs(here)}\n\n{_growth(here)}")
    return "\n\n".join(parts) + f"\n\n{MEANING}"


def too_steep(rows: Sequence[Row]) -> list[str]:
    """form, step, quantity and exponents of whatever grows faster than LIMIT, a line each."""
    found = []
    latest = {(row["form"], row["step"], row["images"]): row for row in rows}
    for form, step in dict.fromkeys((row["form"], row["step"]) for row in rows):
        here = [row for row in latest.values() if (row["form"], row["step"]) == (form, step)]
        for name in QUANTITIES:
            values = _of(here, name)
            if any(value is not None and value > LIMIT for value in values):
                found.append(f"{form} {step} {name}: {_cell(values)}")
    return found


def _costs(rows: Sequence[Row]) -> str:
    lines = [
        "| step | images | seconds | CPU seconds | memory, MiB | of it anonymous | read, MB | written, MB "
        "| from disk, MB | to disk, MB | from store, MB | to store, MB |",
        "|---|" + "---:|" * 11,
    ]
    for step, images in ((step, n) for step in dict.fromkeys(row["step"] for row in rows) for n in _sizes(rows)):
        for row in (row for row in rows if (row["step"], row["images"]) == (step, images)):
            ended = f" (exit {row['code']})" if row["code"] else ""
            memory = " | ".join(f"{row[name] / 2**20:.0f}" for name in ("memory", "anonymous"))
            names = ("read", "written", "disk_read", "disk_written", "store_read", "store_written")
            moved = " | ".join(f"{row[name] / 1e6:.0f}" if name in row else "" for name in names)
            lines.append(f"| {step}{ended} | {images} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {memory} | {moved} |")
    return "\n".join(lines)


def _growth(rows: Sequence[Row]) -> str:
    titles = " | ".join(f"{name.replace('_', ' ')}: all, last, net" for name in QUANTITIES)
    lines = [f"| exponent of | {titles} |", "|---|" + "---|" * len(QUANTITIES)]
    for step in dict.fromkeys(row["step"] for row in rows):
        here = [row for row in rows if row["step"] == step]
        lines.append(f"| {step} | " + " | ".join(_cell(_of(here, name)) for name in QUANTITIES) + " |")
    return "\n".join(lines)


def _of(rows: Sequence[Row], name: str) -> tuple[float | None, ...]:
    by_size = sorted(rows, key=lambda row: row["images"])
    return exponents([row["images"] for row in by_size], [_value(row, name) for row in by_size], QUANTITIES[name])


def _value(row: Row, name: str) -> float:
    moved = ("read", "written", "store_read", "store_written")
    return float(sum(row.get(part, 0) for part in moved) if name == "bytes" else row[name])


def _cell(values: Sequence[float | None]) -> str:
    return ", ".join("-" if value is None else f"**{value:.2f}**" if value > LIMIT else f"{value:.2f}" for value in values)


def _sizes(rows: Sequence[Row]) -> list[int]:
    return sorted({row["images"] for row in rows})
