"""Steps that take equal processor seconds: python -m experiments.calibrate --cpu-seconds 200 --data FOLDER [--only ROW ...]

Each row of experiments/plan.json that trains by steps is timed on each of its sets, one thread, some steps of its own training
after a few that warm up; `steps` in the plan is then as many as fit. What a step takes depends on the machine, so this is done
once: who repeats the contest trains the same steps, and the processor seconds that they took there stand beside each result.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from experiments.contestant import Budget, Labels, Setting
from experiments.methods import METHODS, TRAINED
from experiments.sets import ImageSet, load
from model.images import Images

WARM, TIMED = 5, 40
"""Steps of the two trainings whose difference is timed: what happens once cancels out."""
ROUNDS = 3
ROUND = 50
"""Steps are a multiple of this, as nobody can time a training to the second."""


def seconds_per_step(method: str, images: Images, labels: Labels, setting: Setting, batch_size: int) -> float:
    """Processor seconds of a step of `method`, the least of ROUNDS: others on the machine can only make it longer."""

    def trained(steps: int) -> float:
        budget = Budget(steps, batch_size)
        made = METHODS[method](images, labels, budget=budget, seed=0, setting=setting)
        return made.cpu_seconds

    rounds = [trained(WARM + TIMED) - trained(WARM) for _ in range(ROUNDS)]
    return max(min(rounds), 1e-9) / TIMED


def steps_within(cpu_seconds: float, step: float) -> int:
    """How many steps of so many seconds fit: a multiple of ROUND, at least one of these."""
    return max(ROUND, int(cpu_seconds / step) // ROUND * ROUND)


def calibrate(plan: dict[str, Any], image_set: ImageSet, cpu_seconds: float, only: list[str]) -> dict[str, int]:
    """Steps by row for one set of the plan, of the rows that train on it by steps."""
    found = {}
    for name, row in plan["rows"].items():
        where = row.get("sets") or plan["sets"]
        if row["method"] not in TRAINED or image_set.name not in where or (only and name not in only):
            continue
        setting = {"family": image_set.family, **row.get("setting", {}), **row.get("on", {}).get(image_set.name, {})}
        images, labels = image_set.images["train"], image_set.labels["train"]
        step = seconds_per_step(row["method"], images, labels, setting, plan["batch_size"])
        found[name] = steps_within(cpu_seconds, step)
        print(f"{image_set.name} {name}: {1000 * step:.1f} ms a step, {found[name]} steps", flush=True)
    return found


def main() -> None:
    """Write the steps into the plan."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu-seconds", type=float, required=True, help="processor seconds of one training")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets' npz files")
    parser.add_argument("--plan", type=Path, default=Path(__file__).parent / "plan.json")
    parser.add_argument("--only", nargs="*", default=[], help="rows; all unless given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = json.loads(arguments.plan.read_text("utf-8"))
    plan["cpu_seconds"] = arguments.cpu_seconds
    names = dict.fromkeys([*plan["sets"], *(name for row in plan["rows"].values() for name in row.get("sets") or ())])
    for name in names:
        found = calibrate(plan, load(name, arguments.data), arguments.cpu_seconds, arguments.only)
        plan.setdefault("steps", {}).setdefault(name, {}).update(found)
        arguments.plan.write_text(json.dumps(plan, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
