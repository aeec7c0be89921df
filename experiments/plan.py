"""The contest's plan (plan.json): what is trained on what, how it is tuned, and which comparisons are declared beforehand.

A row is one training a set and seed. It may be read in several ways (DiER at one t, or at three side by side): each reading is a
line of the tables, its variant chosen on val among those that its pattern matches. A row with trials is tuned first, on a seed of
its own, at a share of the steps, by val; all tuned rows have the same number of trials.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from experiments.methods import METHODS, TRAINED

PLAN = Path(__file__).parent / "plan.json"
EVALUATION = 1
"""Raised when `evaluate.py` measures something else: results from before are then no longer the plan's."""
SEEDLESS = 0
"""The seed of what depends on none, whatever the plan's seeds are."""
Kind = Literal["trial", "run"]
Fraction = Field(gt=0, le=1)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Strict):
    """One training."""

    method: str = Field(description="a name in experiments.methods.METHODS")
    setting: dict[str, Any] = {}
    on: dict[str, dict[str, Any]] = Field({}, description="settings of one set, over `setting`")
    trials: list[dict[str, Any]] = Field([], description="settings to choose among, over the others")
    readings: dict[str, str] = Field(
        {}, description="lines of the tables: a regular expression over names of variants; empty = the row's name, all"
    )
    sets: list[str] | None = Field(None, description="null = the plan's")
    seedless: bool = Field(False, description="nothing in it depends on a seed: it is trained once")
    labels: bool = Field(False, description="is given the labels")
    curve: bool = Field(False, description="every t=... alone is probed in full too")
    looks: bool = Field(False, description="is looked at while it trains, by its first reading")


class Comparison(_Strict):
    """`ours` against each of `theirs` on each of `sets`; readings' names."""

    ours: str
    theirs: list[str]
    sets: list[str]


class Plan(_Strict):
    """What is said in plan.json."""

    sets: list[str]
    seeds: list[int] = Field(min_length=1)
    batch_size: int = Field(ge=1)
    steps: dict[str, dict[str, int]] = Field(description="by set and row: calibrated to equal processor seconds")
    cpu_seconds: float = Field(gt=0, description="that a training may take, as calibrated; an estimate of what is left rests on it")
    trial_seed: int
    trial_share: float = Fraction
    looks: list[float] = Field([], description="shares of the steps after which rows are looked at")
    rows: dict[str, Row]
    comparisons: list[Comparison] = []
    explored: list[Comparison] = Field([], description="asked after test had been read of a seed: no part of what is declared")
    probe: Literal["1k", "10k", "all"] = Field("all", description="the one that tables and comparisons are of")
    sizes: list[Literal["1k", "10k", "all"]] = Field(
        ["1k", "10k", "all"], description="training images of the probes; all takes as long as a short training"
    )
    margin: float = Field(0.005, gt=0, description="TOST's: differences within it are no difference")

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        if self.trial_seed in self.seeds:
            raise ValueError(
                f"trial_seed {self.trial_seed} is one of seeds: choose another, or tuning has seen a result's training"
            )
        if self.probe not in self.sizes:
            raise ValueError(f"probe {self.probe} is none of sizes {', '.join(self.sizes)}: add it, or choose another")
        if len(numbers := {len(row.trials) for row in self.rows.values() if row.trials}) > 1:
            raise ValueError(f"rows have {sorted(numbers)} trials: give every tuned row the same number")
        for name, row in self.rows.items():
            if row.method not in METHODS:
                raise ValueError(f"row {name!r}: no method {row.method!r}; use {', '.join(METHODS)}")
        readings = [reading for name in self.rows for reading in self.readings(name)]
        if twice := {name for name in readings if readings.count(name) > 1}:
            raise ValueError(f"two rows have a reading {min(twice)!r}: rename one")
        for comparison in (*self.comparisons, *self.explored):
            for name in (comparison.ours, *comparison.theirs):
                if name not in readings:
                    raise ValueError(f"comparisons: there is no reading {name!r}: use one of {', '.join(readings)}")
        return self

    def readings(self, row: str) -> Mapping[str, str]:
        """Patterns by the tables' line."""
        return self.rows[row].readings or {row: ".*"}

    def sets_of(self, row: str) -> list[str]:
        """Where a row is trained."""
        found = self.rows[row].sets
        return self.sets if found is None else found

    def all_sets(self) -> list[str]:
        """The plan's, then those that only some rows have."""
        return list(dict.fromkeys([*self.sets, *(name for row in self.rows for name in self.sets_of(row))]))

    def row_of(self, reading: str) -> str:
        """The row that a reading belongs to."""
        return next(row for row in self.rows if reading in self.readings(row))

    def pairs(self, *, explored: bool = False) -> list[tuple[str, str, str]]:
        """The declared comparisons, or those explored afterwards: (ours, theirs, set)."""
        asked = self.explored if explored else self.comparisons
        return [(one.ours, theirs, where) for one in asked for where in one.sets for theirs in one.theirs]


@dataclass(frozen=True)
class Job:
    """One training, to be tuned by or to be a result."""

    kind: Kind
    row: str
    where: str
    """The set."""
    seed: int
    method: str
    setting: dict[str, Any]
    steps: int
    batch_size: int
    labels: bool
    looks: tuple[int, ...] = ()
    curve: bool = False
    readings: tuple[tuple[str, str], ...] = ()
    trial: int = -1
    sizes: tuple[str, ...] = ("1k", "10k", "all")

    @property
    def patterns(self) -> tuple[tuple[str, str], ...]:
        """Readings and their patterns; a row is tuned by its first."""
        return self.readings or ((self.row, ".*"),)

    @property
    def fingerprint(self) -> str:
        """Of all that decides the result."""
        said = json.dumps(asdict(self) | {"evaluation": EVALUATION}, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        what = f"trial {self.trial}" if self.kind == "trial" else f"seed {self.seed}"
        return f"{self.row} on {self.where}, {what}"


def read_plan(file: Path = PLAN) -> Plan:
    """Raises ValueError for what is no plan."""
    if not file.is_file():
        raise ValueError(f"no plan {file}: give one with --plan")
    try:
        return Plan.model_validate_json(file.read_text("utf-8"))
    except ValidationError as found:
        first = found.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file}: {place or 'plan'}: {first['msg']}; mend it there ({found.error_count()} in all)") from None


def trial_jobs(plan: Plan, row: str, where: str) -> list[Job]:
    """The trainings that tune a row on a set."""
    spec = plan.rows[row]
    steps = max(1, round(plan.trial_share * steps_of(plan, row, where)))
    first = tuple(plan.readings(row).items())[:1]
    jobs = enumerate(spec.trials)
    return [_job(plan, row, where, "trial", plan.trial_seed, trial, steps, trial=i, readings=first) for i, trial in jobs]


def run_jobs(plan: Plan, row: str, where: str, chosen: Mapping[str, Any]) -> list[Job]:
    """The trainings that are results, a seed each, with the setting that tuning chose."""
    steps, spec = steps_of(plan, row, where), plan.rows[row]
    looks = tuple(sorted({max(1, round(share * steps)) for share in plan.looks})) if spec.looks else ()
    readings = tuple(plan.readings(row).items())
    seeds = [SEEDLESS] if spec.seedless else plan.seeds
    return [_job(plan, row, where, "run", seed, chosen, steps, looks=looks, curve=spec.curve, readings=readings) for seed in seeds]


def _job(plan: Plan, row: str, where: str, kind: Kind, seed: int, chosen: Mapping[str, Any], steps: int, **more: Any) -> Job:
    spec = plan.rows[row]
    setting = {**spec.setting, **spec.on.get(where, {}), **chosen}
    return Job(kind, row, where, seed, spec.method, setting, steps, plan.batch_size, spec.labels, sizes=tuple(plan.sizes), **more)


def steps_of(plan: Plan, row: str, where: str) -> int:
    """The row's number, else its method's; 0 for what trains by no steps. Raises ValueError where the plan has none."""
    known = plan.steps.get(where, {})
    for name in (row, plan.rows[row].method):
        if name in known:
            return known[name]
    if plan.rows[row].method not in TRAINED:
        return 0
    raise ValueError(f"plan.steps has no number for {row!r} on {where!r}: python -m experiments.calibrate finds it")


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The variants that a reading may choose among, in order. Raises ValueError where there is none."""
    known = list(names)
    if not (found := [name for name in known if re.fullmatch(pattern, name)]):
        raise ValueError(f"no variant matches the reading {pattern!r}: there are {', '.join(known)}")
    return found
