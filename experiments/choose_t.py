"""The race of ways to choose t over saved models: python -m experiments.choose_t --models FOLDER --data FOLDER --out FILE.jsonl

FOLDER/SET or FOLDER/SET-sSEED holds a model as train writes it (config.json, model.safetensors; settings.json where there is one).
With --row the models of that row of a plan are trained first where they are missing, without a look at labels.
Of each a line is written: the linear probe's accuracy on val and test at 12 t even in log-SNR (the sweep), what every way of
`embed.select` and every label-free score chose, and the processor seconds that it took. A line that is there is not made again.

The regret of a choice is what test loses by it against the t that the whole sweep chooses on val; it may be below zero. Which
label-free scores to average is itself chosen, so for each set it is chosen on the others: experiments/choosing.py makes the table.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.probing.classifier import Floats, fit_grid
from components.selecting.choose import METHODS, choose
from components.selecting.places import grid, levels, nearest, side_by_side
from data.format import Dataset, DatasetInfo, Split
from experiments.contestant import Budget
from experiments.methods.dier import trainer_of
from experiments.plan import PLAN, Plan, read_plan, run_jobs
from experiments.sets import ImageSet, load
from model.dier import DiER
from model.features import embed
from model.weights import load_model, save_model

C_GRID = [0.003, 0.03, 0.3]
MAX_ITER = 200
PER_SPLIT = {"train": 10_000, "val": 5_000, "test": 10_000}
REFERENCE = "whole sweep, val"
FIXED_LOG_SNR, FIXED_T = 2.1, 300
"""What must be beaten: t = 100 of the linear schedule, where CIFAR-10 peaks, and t = 300."""


@dataclass(frozen=True)
class InMemory(Dataset):
    """A set of the contest as `choose` takes it."""

    arrays: ImageSet | None = None

    def split(self, name: str) -> Split:
        """One split."""
        assert self.arrays is not None
        return Split(name, self.arrays.images[name], self.arrays.labels[name])  # type: ignore[arg-type, index]


@dataclass
class Race:
    """One model on one set: probes at any t, made once, and what the encoder and the probes took."""

    model: DiER
    images: ImageSet
    limit: dict[str, int]
    seconds: dict[str, float] = field(default_factory=lambda: {"embed": 0.0, "probe": 0.0})
    embedded: int = 0
    _kept: dict[tuple[int, ...], dict[str, float]] = field(default_factory=dict)

    def at(self, *timesteps: int) -> dict[str, float]:
        """Accuracy on "val", where C is chosen, and on "test", of v at one t or at several side by side."""
        if timesteps not in self._kept:
            rows = {split: _rows(self.images, split, most) for split, most in self.limit.items()}
            start = time.process_time()
            x = {split: self._features(split, rows[split], timesteps) for split in rows}
            middle = time.process_time()
            y = {split: self.images.labels[split][rows[split]] for split in rows}  # type: ignore[index]
            found = []
            for _, probe in fit_grid(x["train"], y["train"], self.images.classes, C_GRID, MAX_ITER):
                right = {split: float((probe.scores(x[split]).argmax(1) == y[split]).mean()) for split in ("val", "test")}
                found.append(right)
            self.seconds["embed"] += middle - start
            self.seconds["probe"] += time.process_time() - middle
            self._kept[timesteps] = max(found, key=lambda one: one["val"])
        return self._kept[timesteps]

    def _features(self, split: str, rows: Any, timesteps: tuple[int, ...]) -> Floats:
        images = self.images.images[split][rows]  # type: ignore[index]
        self.embedded += len(images) * len(timesteps)
        return np.concatenate([embed(self.model, images, t) for t in timesteps], axis=1)


def race(model: DiER, images: ImageSet, limit: dict[str, int], *, condition_dropout: bool) -> dict[str, Any]:
    """The sweep's curve, and of each way of choosing its t, test accuracy there, and processor seconds."""
    schedule, dataset = model.config.schedule, _dataset(images)
    timesteps, known = grid(schedule), levels(schedule)
    one = Race(model, images, limit)
    curve = [{"t": t, "log_snr": known[t], **one.at(t)} for t in timesteps]
    everything = sum(dataset.info.counts.values()) * len(timesteps)
    sweep = one.seconds["probe"] + one.seconds["embed"] * everything / one.embedded  # a sweep embeds every image
    chosen: dict[str, dict[str, float]] = {}
    scores: list[dict[str, float]] = []
    for select in METHODS:
        start = time.process_time()
        found = choose(select, 1, model, dataset, condition_dropout=condition_dropout)
        chosen[select] = _choice(one, int(found["t"]), time.process_time() - start)
        if select == "label_free":
            scores = found["scores"]
    chosen["fixed log-SNR 2.1"] = _choice(one, nearest(FIXED_LOG_SNR, schedule), 0.0)
    chosen["fixed t = 300"] = _choice(one, FIXED_T, 0.0)
    best = max(curve, key=lambda row: row["val"])
    chosen[REFERENCE] = _choice(one, int(best["t"]), sweep)
    together = {way: _together(one, side_by_side(int(chosen[way]["t"]), 3, schedule)) for way in (REFERENCE, "label_free")}
    return {"curve": curve, "scores": scores, "chosen": chosen, "three": together, "sweep_seconds": sweep}


def _choice(one: Race, t: int, seconds: float) -> dict[str, float]:
    return {"t": t, **one.at(t), "seconds": seconds}


def _together(one: Race, timesteps: list[int]) -> dict[str, Any]:
    return {"timesteps": timesteps, **one.at(*timesteps)}


def _rows(images: ImageSet, split: str, most: int) -> Any:
    """At most so many images of a split, drawn at random, ascending: the same for every t."""
    count = len(images.labels[split])  # type: ignore[index]
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _dataset(images: ImageSet) -> InMemory:
    counts = {str(split): len(labels) for split, labels in images.labels.items()}
    names, shape = [str(k) for k in range(images.classes)], list(images.images["train"].shape[1:])
    info = DatasetInfo(images.name, "experiments", "", "multi-class", names, shape, counts, [])
    return InMemory(Path(images.name), info, images)


def _withheld(folder: Path) -> bool:
    file = folder / "settings.json"
    return bool(json.loads(file.read_text("utf-8"))["train"].get("condition_dropout", 0)) if file.is_file() else False


def train_models(plan: Plan, row: str, models: Path, data: Path, say: Callable[[str], None] = print) -> None:
    """Train a row of a plan, as it stands there, and keep each model as `run` reads it; those that are there stay."""
    for job in (job for where in plan.sets_of(row) for job in run_jobs(plan, row, where, {})):
        if (folder := models / f"{job.where}-s{job.seed}").exists():
            continue
        images, budget = load(job.where, data), Budget(job.steps, job.batch_size)
        setting = {"family": images.family, **job.setting}
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models) as beside:
            made = Path(beside) / folder.name
            trainer = trainer_of(images.images["train"], budget, job.seed, setting, Path(beside) / "work")
            trainer.run()
            made.mkdir()
            save_model(made, trainer.model, trainer.ema_model().state_dict())
            withheld = {"train": {"condition_dropout": trainer.config.condition_dropout}}
            (made / "settings.json").write_text(json.dumps(withheld), "utf-8")
            made.rename(folder)  # whole, or not there
        say(f"{folder.name}: {job.steps} steps of {row}")


def run(
    models: Path, data: Path, out: Path, limit: dict[str, int], say: Callable[[str], None] = print, *, reading: str = ""
) -> None:
    """A line of `out` for each model that has none yet; `reading` is the models' name in tables and figures."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["model"] for line in out.read_text("utf-8").splitlines()} if out.is_file() else set()
    for folder in sorted(file.parent for file in models.glob("*/config.json")):
        if folder.name in done:
            continue
        name, _, seed = folder.name.partition("-s")
        found = race(load_model(folder), load(name, data), limit, condition_dropout=_withheld(folder))
        line = {"model": folder.name, "reading": reading, "set": name, "seed": int(seed or 0), "images": limit} | found
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        say(f"{folder.name}: " + ", ".join(f"{way} t = {one['t']} {one['test']:.4f}" for way, one in found["chosen"].items()))


def main() -> None:
    """Race, over all models of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of SET.npz (experiments/sets.py)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--row", help="of the plan: train the models that are missing")
    for split, most in PER_SPLIT.items():
        parser.add_argument(f"--{split}", type=int, default=most, help=f"{split} images of a probe at most")
    given = parser.parse_args()
    if given.row is not None:
        plan = read_plan(given.plan)
        if given.row not in plan.rows:
            parser.error(f"--row {given.row}: not in {given.plan}, which has {', '.join(plan.rows)}")
        train_models(plan, given.row, given.models, given.data)
    limit = {split: getattr(given, split) for split in PER_SPLIT}
    run(given.models, given.data, given.out, limit, reading=given.row or given.models.name)


if __name__ == "__main__":
    main()
