"""The contest's tables as Markdown, and the page that carries them between two markers."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.plan import Plan

PROBES = ("1k", "10k", "all", "knn")
FEW = ("1", "5", "10", "50")
NO_RESULT, NOT_RUN = "one seed is no result", "not run"


def markers(name: str) -> tuple[str, str]:
    """The lines between which the tables of a plan stand, by the plan's name."""
    return f"<!-- experiments.tables {name}: begin -->", f"<!-- experiments.tables {name}: end -->"


def with_tables(page: str, text: str, name: str) -> str:
    """The page with `text` between the two markers of `name`. Raises ValueError for a page without them."""
    begin, end = markers(name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page needs one line {begin} and one line {end}: add them where the tables belong")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}"


def markdown(plan: Plan, main_table: pd.DataFrame, compared: pd.DataFrame, explored: pd.DataFrame) -> str:
    """The main table, a part a set, the declared comparisons, and those that were asked afterwards."""
    parts = []
    for where, lines in main_table.groupby("set", sort=False):
        parts.append(f"**{where}**\n\n{_main_markdown(lines.to_dict('records'))}")
    for said, rows in (
        ("Declared comparisons", compared),
        ("Asked after test had been read of one seed, so an indication", explored),
    ):
        if len(rows):
            parts.append(f"**{said}** (probe on {plan.probe})\n\n{_compared_markdown(rows.to_dict('records'))}")
    return "\n\n".join(parts) + "\n"


def _main_markdown(lines: list[dict[Any, Any]]) -> str:
    head = [
        "",
        "1k labels",
        "10k",
        "all",
        "kNN",
        *(f"{n} a class" for n in FEW),
        "val",
        "chosen",
        "numbers",
        "rank",
        "TFLOP",
        "CPU s",
        "trials",
        "seeds",
    ]
    rows = []
    for line in lines:
        cells = [_accuracy(line, probe) for probe in PROBES]
        cells += [_percent(line.get(f"few_{labels}")) for labels in FEW]
        cells += [_percent(line.get("val")), _text(line.get("variant")), _number(line.get("dimension")), _number(line.get("rank"))]
        cells += [_number(line.get("flops"), 1e12), _number(line.get("cpu_seconds")), str(line["trials"]), _seeds(line)]
        rows.append([str(line["reading"]), *cells])
    return _grid(head, rows)


def _compared_markdown(lines: list[dict[Any, Any]]) -> str:
    rows = []
    for line in lines:
        known = not _missing(line["difference"])
        points = f"{100 * line['difference']:+.2f} [{100 * line['low']:+.2f}, {100 * line['high']:+.2f}]" if known else ""
        p = [f"{line[name]:.2g}" if not _missing(line[name]) else "" for name in ("p_holm", "p_equal", "p_holm_pooled")]
        cells = [points, *p[:2], line["verdict"], p[2], line["verdict_pooled"], _number(line["seeds"])]
        rows.append([line["set"], f"{line['ours']} - {line['theirs']}", *cells])
    head = ["set", "difference of", "points", "p (Holm)", "p of a difference (TOST)", "verdict"]
    return _grid([*head, "p, spread pooled (Holm)", "verdict, spread pooled", "seeds"], rows)


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _accuracy(line: Mapping[Any, Any], probe: str) -> str:
    if _missing(line.get(probe)):
        return ""
    return f"{_percent(line[probe])} [{_percent(line[f'{probe}_low'])}, {_percent(line[f'{probe}_high'])}]"


def _seeds(line: Mapping[Any, Any]) -> str:
    if line["of"] == 1:
        return "none needed" if line["seeds"] else NOT_RUN
    if line["seeds"] < 2:
        return (NO_RESULT if line["seeds"] else NOT_RUN) + f" (of {line['of']})"
    return f"{line['seeds']} of {line['of']}"


def _percent(value: Any) -> str:
    return "" if _missing(value) else f"{100 * value:.2f}"


def _number(value: Any, unit: float = 1.0) -> str:
    return "" if _missing(value) else f"{value / unit:,.0f}"


def _text(value: Any) -> str:
    return "" if _missing(value) else str(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
