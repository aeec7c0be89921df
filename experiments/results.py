"""Results as they come: a JSON line each, appended and flushed to disk, so that a contest may end at any time and go on later."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.evaluate import unpack
from experiments.plan import Job, Plan, run_jobs, trial_jobs

Record = dict[str, Any]
Bools = npt.NDArray[np.bool_]


class Lines:
    """The lines of one file; of several for one job the last counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._by_job: dict[str, list[Record]] = {}
        for record in _read(file):
            self._remember(record)

    def add(self, records: list[Record]) -> None:
        """Append the lines of one job (one fingerprint), and see them on disk."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        _end_whole(self.file)
        with open(self.file, "a", encoding="utf-8") as out:
            out.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
            out.flush()
            os.fsync(out.fileno())
        for fingerprint in {record["job"] for record in records}:
            self._by_job.pop(fingerprint, None)
        for record in records:
            self._remember(record)

    def of(self, job: Job) -> list[Record]:
        """What a job gave: a line a reading; none where it has not run or has failed."""
        return [record for record in self._by_job.get(job.fingerprint, []) if "failed" not in record]

    def _remember(self, record: Record) -> None:
        known = self._by_job.setdefault(record["job"], [])
        known[:] = [other for other in known if "failed" not in other and other.get("reading") != record.get("reading")]
        known.append(record)


def _read(file: Path) -> Iterator[Record]:
    """A last line that was cut off by the machine's end is none; any other that is no JSON is told."""
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"{file}:{number} is no JSON: mend or remove the line") from None


def _end_whole(file: Path) -> None:
    """Remove a last line that was cut off: what is appended would be part of it."""
    content = file.read_bytes() if file.is_file() else b""
    if not content.endswith(b"\n") and content:
        with open(file, "r+b") as out:
            out.truncate(content.rfind(b"\n") + 1)


def chosen_setting(plan: Plan, trials: Lines, row: str, where: str) -> Mapping[str, Any] | None:
    """The trial that is best on val, the first of equals; {} for a row without trials; None while some have not run."""
    found = [(job, trials.of(job)) for job in trial_jobs(plan, row, where)]
    if not found:
        return {}
    if any(not records for _, records in found):
        return None
    best, _ = max(found, key=lambda one: one[1][0]["val"])
    return plan.rows[row].trials[best.trial]


def results_of(plan: Plan, folder: Path) -> dict[tuple[str, str], dict[int, Record]]:
    """By (reading, set) and seed: the lines in `folder` that are of this plan. What has not run is not there."""
    trials, runs = Lines(folder / "trials.jsonl"), Lines(folder / "runs.jsonl")
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for where in plan.all_sets():
        for row in plan.rows:
            if where not in plan.sets_of(row) or (chosen := chosen_setting(plan, trials, row, where)) is None:
                continue
            for job in run_jobs(plan, row, where, chosen):
                for record in runs.of(job):
                    found.setdefault((record["reading"], where), {})[job.seed] = record
    return found


def outcomes(records: Mapping[int, Record], probe: str) -> dict[int, npt.NDArray[np.float64]]:
    """By seed: right or wrong on test (N,) by a probe ("1k", "10k", "all") or "knn"; the mean over the copies of an original.

    Seeds whose test has not been read, or whose plan had no such probe, are left out.
    """
    found = {}
    for seed, record in records.items():
        part = record["knn"] if probe == "knn" else record["probes"].get(probe, {})
        if "right" in part:
            right = unpack(part["right"], record["test_images"])
            found[seed] = right.reshape(-1, record["copies"]).mean(axis=1)
    return found
