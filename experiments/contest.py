"""The contest: every row of the plan, on every set, for every seed; stopped and gone on with at any time.

    python -m experiments.contest --data FOLDER --dry-run            # what is left, and about how long
    python -m experiments.contest --data FOLDER --jobs 2             # tuning and trainings; test stays unread
    python -m experiments.contest --data FOLDER --jobs 2 --test      # test too: the plan must be committed
    python -m experiments.contest --data FOLDER --sets cifar10 --rows DiER SimCLR --seeds 0 1

FOLDER holds the sets as NAME.npz in MedMNIST's layout; digits are bundled. Tuning comes first, then seed by seed, within a seed set
by set and row by row: a contest that is stopped has compared all on whole seeds. Each training is a line of trials.jsonl or
runs.jsonl in --out when it is done; one that was going on begins again. A training takes one thread; --jobs are processes.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from experiments.job import run_job
from experiments.plan import PLAN, Job, Plan, read_plan, run_jobs, trial_jobs
from experiments.results import Lines, Record, chosen_setting

RESULTS = Path(__file__).parent / "results"
READING_SECONDS, CURVE_SECONDS, LOOK_SECONDS = 40.0, 150.0, 8.0
"""About what the probes of a reading, of a curve over five t, and of a look take: the plan's seconds are training alone."""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status: 1 where a training failed, 2 for bad usage."""
    args = _arguments().parse_args(arguments)
    try:
        return _contest(args)
    except ValueError as error:
        print(f"contest: {error}", file=sys.stderr)
        return 2


def _contest(args: argparse.Namespace) -> int:
    plan = _part(read_plan(args.plan), args)
    if args.test and (why := uncommitted(args.plan)):
        raise ValueError(f"--test: {why}; test is read with a plan that was committed before")
    trials, runs = Lines(args.out / "trials.jsonl"), Lines(args.out / "runs.jsonl")
    if args.dry_run:
        _tell(plan, trials, runs, args)
        return 0
    failed = _do(_open(tuning(plan), trials, test=False), trials, args, test=False)
    failed += _do(_open(trainings(plan, trials), runs, test=args.test), runs, args, test=args.test)
    return 1 if failed else 0


def tuning(plan: Plan) -> list[Job]:
    """All trials: set by set, row by row."""
    return [job for where, row in _places(plan) for job in trial_jobs(plan, row, where)]


def trainings(plan: Plan, trials: Lines) -> list[Job]:
    """All trainings of rows that are tuned: seed by seed."""
    jobs = []
    for where, row in _places(plan):
        chosen = chosen_setting(plan, trials, row, where)
        if chosen is None:
            print(f"contest: {row} on {where} is left out: not all of its trials have run", file=sys.stderr)
        else:
            jobs += run_jobs(plan, row, where, chosen)
    order = {seed: place for place, seed in enumerate(plan.seeds)}
    return sorted(jobs, key=lambda job: order.get(job.seed, -1))  # stable: within a seed as they came


def uncommitted(file: Path) -> str:
    """Why a file cannot count as committed; empty where it can."""
    for command, why in (
        (["ls-files", "--error-unmatch"], "is not in git"),
        (["diff", "--quiet", "HEAD", "--"], "differs from the last commit"),
    ):
        done = subprocess.run(["git", *command, file.name], cwd=file.resolve().parent, capture_output=True, check=False)  # noqa: S603, S607
        if done.returncode:
            return f"{file} {why}"
    return ""


def _places(plan: Plan) -> Iterator[tuple[str, str]]:
    return ((where, row) for where in plan.all_sets() for row in plan.rows if where in plan.sets_of(row))


def _open(jobs: Iterable[Job], lines: Lines, *, test: bool) -> list[Job]:
    """Those that have no line yet, or were not read on test when they are to be."""
    return [job for job in jobs if not (known := lines.of(job)) or (test and not all("right" in line["knn"] for line in known))]


def _do(jobs: list[Job], lines: Lines, args: argparse.Namespace, *, test: bool) -> int:
    """Run jobs, their lines as they end; how many failed."""
    failed, began = 0, time.time()
    for number, (job, result) in enumerate(_ended(jobs, args.jobs, partial(run_job, folder=args.data, test=test)), 1):
        records, said = _outcome(job, result)
        failed += "failed" in records[0]
        lines.add(records)
        print(f"[{number}/{len(jobs)}, {(time.time() - began) / 60:.0f} min] {job}: {said}", flush=True)
    return failed


def _ended(jobs: list[Job], processes: int, run: Callable[[Job], list[Record]]) -> Iterator[tuple[Job, Callable[[], list[Record]]]]:
    """Each job with what gives its lines, or raises: in turn in this process, or as they end in several others."""
    if processes == 1 or len(jobs) <= 1:
        yield from ((job, partial(run, job)) for job in jobs)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # before the workers start: they inherit it
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(job: Job, result: Callable[[], list[Record]]) -> tuple[list[Record], str]:
    """A job's lines and what to say of them; a training that fails (a loss that is not finite, say) stops no other."""
    try:
        records = result()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return [{"job": job.fingerprint, "row": job.row, "set": job.where, "seed": job.seed, "failed": why}], f"failed: {why}"
    val = ", ".join(f"{100 * max(line['variants'].values()):.2f} ({line['variant']})" for line in records)
    return records, f"val {val}; {records[0]['cpu_seconds']:.0f} s of a processor"


def _tell(plan: Plan, trials: Lines, runs: Lines, args: argparse.Namespace) -> None:
    open_trials = _open(tuning(plan), trials, test=False)
    # a row whose trials are open is counted with its first trial: the number of trainings is the same
    jobs = [
        job for where, row in _places(plan) for job in run_jobs(plan, row, where, chosen_setting(plan, trials, row, where) or {})
    ]
    open_runs = _open(jobs, runs, test=args.test)
    seconds = sum(bool(job.steps) * plan.cpu_seconds * plan.trial_share for job in open_trials)
    seconds += sum(bool(job.steps) * plan.cpu_seconds + _evaluation_seconds(job) for job in open_runs)
    hours = seconds / 3600 / args.jobs
    print(f"{len(open_trials)} trials and {len(open_runs)} of {len(jobs)} trainings are left: about {hours:.1f} hours")
    for job in [*open_trials, *open_runs]:
        print(f"  {job}: {job.steps} steps")


def _evaluation_seconds(job: Job) -> float:
    return READING_SECONDS * len(job.patterns) + CURVE_SECONDS * job.curve + LOOK_SECONDS * len(job.looks)


def _part(plan: Plan, args: argparse.Namespace) -> Plan:
    """The plan, or what of it was asked for. Raises ValueError for a name that is not in it."""
    for name, asked, known in (
        ("sets", args.sets, plan.all_sets()),
        ("rows", args.rows, plan.rows),
        ("seeds", args.seeds, plan.seeds),
    ):
        if unknown := [one for one in asked or [] if one not in known]:
            raise ValueError(f"--{name} {unknown[0]}: not in the plan, which has {', '.join(map(str, known))}")
    rows = {
        name: row.model_copy(update={"sets": [where for where in plan.sets_of(name) if where in (args.sets or plan.all_sets())]})
        for name, row in plan.rows.items()
        if name in (args.rows or plan.rows)
    }
    return plan.model_copy(update={"rows": rows, "seeds": args.seeds or plan.seeds})


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.contest", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with NAME.npz in MedMNIST's layout")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of trials.jsonl and runs.jsonl")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, a process and a thread each")
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--rows", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--test", action="store_true", help="read test too")
    parser.add_argument("--dry-run", action="store_true", help="say what is left, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
