"""The contest's tables, from its lines: CSV for figures and for whoever computes on, Markdown for docs/results.md.

    python -m experiments.tables                                     # experiments/results/*.csv and tables.md
    python -m experiments.tables --page docs/results.md              # and the page's part between the two markers

A contest that is not done has tables too: what has not run is told, intervals are over the seeds that there are, and one seed is
no result. Accuracies are shares; intervals are at 95 %.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import statistics
from experiments.contest import RESULTS
from experiments.job import timestep
from experiments.page import FEW, NO_RESULT, NOT_RUN, PROBES, markdown, with_tables
from experiments.plan import PLAN, Plan, read_plan, trial_jobs
from experiments.results import Lines, Record, outcomes, results_of
from experiments.statistics import Effect, Spread
from model.schedule import log_snr

Results = Mapping[tuple[str, str], Mapping[int, Record]]
ALPHA = 0.05


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tables", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of runs.jsonl, and of what is written")
    parser.add_argument("--page", type=Path, help="a Markdown page with the two markers of the plan")
    args = parser.parse_args(arguments)
    try:
        plan = read_plan(args.plan)
        made = tables(plan, args.results)
        text = markdown(plan, made["main"], made["comparisons"], made["explored"])
        for name, table in made.items():
            table.to_csv(args.results / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        (args.results / "tables.md").write_text(text, "utf-8")
        if args.page is not None:
            args.page.write_text(with_tables(args.page.read_text("utf-8"), text, args.plan.stem), "utf-8")
    except (OSError, ValueError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    return 0


def tables(plan: Plan, folder: Path) -> dict[str, pd.DataFrame]:
    """Every table by its file's name."""
    found = results_of(plan, folder)
    return {
        "main": pd.DataFrame([_line(plan, found, reading, where) for where, reading in _lines(plan)]),
        "comparisons": comparisons(plan, found, plan.pairs()),
        "explored": comparisons(plan, found, plan.pairs(explored=True)),
        "minutes": pd.DataFrame([row for key, seeds in found.items() for row in _minutes(key, seeds)], columns=MINUTES),
        "curve": pd.DataFrame([row for key, seeds in found.items() for row in _curve(key, seeds)], columns=CURVE),
        "linearity": pd.DataFrame([row for key, seeds in found.items() for row in _linearity(key, seeds)], columns=LINEARITY),
        "occupancy": pd.DataFrame([row for key, seeds in found.items() for row in _occupancy(key, seeds)], columns=OCCUPANCY),
        "gap": pd.DataFrame(_gaps(folder), columns=GAP),
        "trials": _trials(plan, Lines(folder / "trials.jsonl")),
    }


def comparisons(plan: Plan, found: Results, pairs: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Comparisons by the plan's probe, Holm over all of them; `verdict` says in words what follows.

    `verdict_pooled` is what follows where the spread over seeds is that of all rows of the set together.
    """
    effects = [_compared(plan, found, *pair) for pair in pairs]
    spreads = {where: _spread(plan, found, where) for where in {where for _, _, where in pairs}}
    pooled = [effect and _pooled(plan, effect, spreads[pair[2]], pair[:2]) for effect, pair in zip(effects, pairs, strict=True)]
    adjusted, adjusted_pooled = (statistics.holm([one.p if one else math.nan for one in some]) for some in (effects, pooled))
    rows = []
    for (ours, theirs, where), effect, p, also, p_also in zip(pairs, effects, adjusted, pooled, adjusted_pooled, strict=True):
        row: Record = {"set": where, "ours": ours, "theirs": theirs, "probe": plan.probe}
        if effect is not None:
            low, high = effect.interval()
            drawn = effect.percentiles()
            row |= {"seeds": effect.seeds, "difference": effect.value, "low": low, "high": high}
            row |= {"bootstrap_low": drawn[0], "bootstrap_high": drawn[1]}
            row |= {"p": effect.p, "p_holm": p, "p_equal": effect.p_equal(plan.margin)}
        if also is not None:
            low, high = also.interval()
            row |= {"low_pooled": low, "high_pooled": high, "p_holm_pooled": p_also}
        rows.append(row | {"verdict": verdict(effect, p, plan.margin), "verdict_pooled": verdict(also, p_also, plan.margin)})
    return pd.DataFrame(rows, columns=COMPARISONS)


def verdict(effect: Effect | None, p: float, margin: float) -> str:
    """What a comparison says, with Holm's p."""
    if effect is None:
        return NOT_RUN
    if not effect.result:
        return NO_RESULT
    if p <= ALPHA:
        return "better" if effect.value > 0 else "worse"
    return f"equal within {100 * margin:g} points" if effect.p_equal(margin) <= ALPHA else "undecided"


def _compared(plan: Plan, found: Results, ours: str, theirs: str, where: str) -> Effect | None:
    one, other = (outcomes(found.get((name, where), {}), plan.probe) for name in (ours, theirs))
    seedless = (plan.rows[plan.row_of(ours)].seedless, plan.rows[plan.row_of(theirs)].seedless)
    return statistics.paired(one, other, seedless=seedless)


def _spread(plan: Plan, found: Results, where: str) -> Spread | None:
    """How far seeds lie apart on a set, of all rows together, a reading of each."""
    readings = (next(iter(plan.readings(name))) for name, row in plan.rows.items() if not row.seedless)
    return statistics.pooled(outcomes(found.get((reading, where), {}), plan.probe) for reading in readings)


def _pooled(plan: Plan, effect: Effect, spread: Spread | None, readings: tuple[str, str]) -> Effect:
    """The same difference with that spread."""
    trained = sum(not plan.rows[plan.row_of(name)].seedless for name in readings)
    return effect if spread is None else effect.with_spread(spread, trained)


def _lines(plan: Plan) -> list[tuple[str, str]]:
    """(set, reading), in the plan's order."""
    return [
        (where, reading)
        for where in plan.all_sets()
        for row in plan.rows
        if where in plan.sets_of(row)
        for reading in plan.readings(row)
    ]


def _line(plan: Plan, found: Results, reading: str, where: str) -> Record:
    """A line of the main table; what is not known is absent."""
    row, records = plan.rows[plan.row_of(reading)], found.get((reading, where), {})
    line: Record = {"set": where, "reading": reading, "method": row.method, "seeds": len(records)}
    line |= {"of": 1 if row.seedless else len(plan.seeds), "trials": len(row.trials)}
    if not records:
        return line
    every = list(records.values())
    variants = [record["variant"] for record in every]
    line |= {"variant": max(variants, key=variants.count), "dimension": every[0]["dimension"], "parameters": every[0]["parameters"]}
    if "rank" in every[0]:
        line["rank"] = float(np.mean([record["rank"] for record in every if "rank" in record]))
    line |= {"flops": every[0]["flops"], "cpu_seconds": float(np.median([record["cpu_seconds"] for record in every]))}
    line["val"] = float(np.mean([record["probes"][plan.probe]["val"] for record in every]))
    for probe in PROBES:
        if known := outcomes(records, probe):
            effect = statistics.accuracy(known, seedless=row.seedless)
            line |= {f"{probe}": effect.value, f"{probe}_low": effect.interval()[0], f"{probe}_high": effect.interval()[1]}
    for labels in FEW:
        if known_few := [record["few"][labels]["test"] for record in every if "test" in record["few"][labels]]:
            line |= {f"few_{labels}": float(np.mean(known_few)), f"few_{labels}_half": statistics.half_interval(known_few)}
    return line


COMPARISONS = ["set", "ours", "theirs", "probe", "seeds", "difference", "low", "high", "bootstrap_low", "bootstrap_high"]
COMPARISONS += ["p", "p_holm", "p_equal", "verdict", "low_pooled", "high_pooled", "p_holm_pooled", "verdict_pooled"]
MINUTES = ["set", "reading", "seed", "step", "cpu_seconds", "val"]
CURVE = ["set", "reading", "seed", "t", "log_snr", "val", "test", "r2"]
LINEARITY = ["set", "reading", "seed", "variant", "r2", "val", "test"]
GAP = ["set", "reading", "seed", "t", "log_snr", "gap_nats"]
OCCUPANCY = ["set", "reading", "seed", "occupancy", "t", "log_snr", "val", "test"]


def _minutes(key: tuple[str, str], seeds: Mapping[int, Record]) -> list[Record]:
    """Looks, and the end by the same short probe (the best of the reading's variants); seconds in proportion to the steps."""
    reading, where = key
    rows = []
    for seed, record in seeds.items():
        if not record["looks"]:
            continue
        ended = {"step": record["steps"], "val": max(record["variants"].values())}
        for look in [*record["looks"], ended]:
            seconds = record["cpu_seconds"] * look["step"] / record["steps"]
            rows.append({"set": where, "reading": reading, "seed": seed, **look, "cpu_seconds": seconds})
    return rows


def _curve(key: tuple[str, str], seeds: Mapping[int, Record]) -> list[Record]:
    """By the full probe where the plan has it made, else by the short one that chooses among variants, on val alone."""
    reading, where = key
    rows = []
    for seed, record in seeds.items():
        schedule = record["setting"].get("schedule", "linear")
        short = [{"variant": name, "val": val} for name, val in record.get("variants", {}).items()]
        for point in record.get("curve", short):
            if (t := timestep(point["variant"])) is None:
                continue
            level = log_snr(t, schedule)
            rows.append({"set": where, "reading": reading, "seed": seed, "t": t, "log_snr": level, **point})
    return rows


def _linearity(key: tuple[str, str], seeds: Mapping[int, Record]) -> list[Record]:
    reading, where = key
    return [
        {"set": where, "reading": reading, "seed": seed, "variant": record["variant"], "r2": record["r2"]}
        | {name: record["probes"]["10k"].get(name) for name in ("val", "test")}
        for seed, record in seeds.items()
    ]


def _occupancy(key: tuple[str, str], seeds: Mapping[int, Record]) -> list[Record]:
    """The t that is best on val, of each curve of several t, beside how full the images are."""
    rows = []
    for seed, record in seeds.items():
        if len(points := _curve(key, {seed: record})) > 1:
            rows.append(max(points, key=lambda point: point["val"]) | {"occupancy": record["occupancy"]})
    return rows


def _gaps(folder: Path) -> list[Record]:
    """What v_t tells the denoiser at each t, in nats per unit log-SNR, from what experiments.choose_t wrote: race-*.jsonl."""
    return [
        {"set": line["set"], "reading": line["reading"], "seed": line["seed"], **score}
        for file in sorted(folder.glob("race-*.jsonl"))
        for line in map(json.loads, file.read_text("utf-8").splitlines())
        for score in line["scores"]
    ]


def _trials(plan: Plan, lines: Lines) -> pd.DataFrame:
    rows = [
        {"set": where, "row": row, "setting": json.dumps(plan.rows[row].trials[job.trial]), "val": record["val"]}
        for where in plan.all_sets()
        for row in plan.rows
        if where in plan.sets_of(row)
        for job in trial_jobs(plan, row, where)
        for record in lines.of(job)
    ]
    return pd.DataFrame(rows, columns=["set", "row", "setting", "val"])


if __name__ == "__main__":
    sys.exit(main())
