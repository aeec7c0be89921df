"""The table of the race of ways to choose t: python -m experiments.choosing RACE.jsonl --out TABLE.csv

Regret is in points of test accuracy against the t that the whole sweep chooses on val, first averaged over the seeds of a set. A
way is judged by its mean over sets (with a 95 % interval, Student's t) and its worst, and by its processor seconds as a share
of the sweep's. Which label-free scores are averaged is chosen for each set on the others alone (leave one set out): that row is
the fair one, all other subsets were seen.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from components.selecting.label_free import SCORES
from components.selecting.scores import rank_average
from experiments.choose_t import REFERENCE
from experiments.statistics import half_interval

Line = Mapping[str, Any]
"""What choose_t writes of a model."""
LEFT_OUT = "label-free, scores chosen on the other sets"
COLUMNS = ["way", "sets", "mean", "low", "high", "worst", "worst_set", "share"]


def regret(line: Line, test: float) -> float:
    """Points of test accuracy that are lost against the whole sweep's choice; below zero = won."""
    return 100 * float(line["chosen"][REFERENCE]["test"] - test)


def by_scores(line: Line, scores: Sequence[str]) -> float:
    """The regret of the t with the best average rank in these label-free scores."""
    together = rank_average({name: [row[name] for row in line["scores"]] for name in scores})
    return regret(line, line["curve"][int(np.argmax(together))]["test"])


def subsets() -> list[tuple[str, ...]]:
    """Every choice of label-free scores, the smaller ones first."""
    return [some for count in range(1, len(SCORES) + 1) for some in combinations(SCORES, count)]


def leave_one_out(lines: Sequence[Line]) -> dict[str, tuple[tuple[str, ...], float]]:
    """Of each set the scores that lose least on the mean over the other sets, and the regret of these on this set.

    Raises ValueError for a single set, which has no others.
    """
    sets = sorted({line["set"] for line in lines})
    if len(sets) < 2:
        raise ValueError(f"scores cannot be chosen on other sets where {', '.join(sets) or 'none'} is all there is: race on more")
    found = {some: _over_sets(lines, lambda line, some=some: by_scores(line, some)) for some in subsets()}
    chosen = {}
    for left in sets:
        best = min(found, key=lambda some: np.mean([found[some][other] for other in sets if other != left]))
        chosen[left] = best, found[best][left]
    return chosen


def table(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A row a way of choosing, those with the least mean regret first."""
    ways: dict[str, dict[str, float]] = {}
    shares: dict[str, float] = {}
    for way in lines[0]["chosen"]:
        ways[way] = _over_sets(lines, lambda line, way=way: regret(line, line["chosen"][way]["test"]))
        shares[way] = _share(lines, way)
    for name in SCORES:
        ways[f"label-free, {name} alone"] = _over_sets(lines, lambda line, name=name: by_scores(line, [name]))
    ways["random"] = _over_sets(lines, lambda line: float(np.mean([regret(line, row["test"]) for row in line["curve"]])))
    if len({line["set"] for line in lines}) > 1:
        ways[LEFT_OUT] = {name: lost for name, (_, lost) in leave_one_out(lines).items()}
    rows = []
    for way, lost in ways.items():
        worst = max(lost, key=lambda name: lost[name])
        share = shares.get(way, 0.0 if way == "random" else _share(lines, "label_free"))
        over = list(lost.values())
        mean, half = float(np.mean(over)), half_interval(over)
        figures = [round(figure, 3) for figure in (mean, mean - half, mean + half, lost[worst])]
        rows.append(dict(zip(COLUMNS, [way, len(lost), *figures, worst, round(share, 4)], strict=True)))
    return sorted(rows, key=lambda row: row["mean"])


def _over_sets(lines: Iterable[Line], lost: Any) -> dict[str, float]:
    """The mean over seeds, by set."""
    found: dict[str, list[float]] = {}
    for line in lines:
        found.setdefault(line["set"], []).append(lost(line))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _share(lines: Sequence[Line], way: str) -> float:
    return float(np.mean([line["chosen"][way]["seconds"] / line["sweep_seconds"] for line in lines]))


def main() -> None:
    """Write the table, and say which scores were chosen for which set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("race", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.race.read_text("utf-8").splitlines()]
    rows = table(lines)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        mean = f"mean {row['mean']:+6.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        print(f"{row['way']:<46} {mean}  worst {row['worst']:+6.2f} ({row['worst_set']})  cost {row['share']:.1%}")
    if len({line["set"] for line in lines}) > 1:
        for name, (some, lost) in leave_one_out(lines).items():
            print(f"{name}: chosen on the other sets: {', '.join(some)}; regret {lost:+.2f}")


if __name__ == "__main__":
    main()
