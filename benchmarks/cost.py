"""Cost against size, a step at a time: python -m benchmarks.cost --real cifar10.npz fashionmnist.npz [--form plain shards s3]

At 10 thousand, 100 thousand and a million images each step runs as `dier STEP` in a process of its own. `process_cost` measures it,
and a row is appended to `--out` at once, so that the same command goes on where it was stopped. Then come the tables and exponents
of `cost_table`; exit code 1 where one is above 1.1. Forms: plain (the dataset as arrays), shards (data.shard_mb), s3 (shards in an
S3 server of this machine, whose own memory and time do not count). The images are 28x28x3 in 10 classes; model.size demo, patch 7,
two t, one C, four baselines; `--set` changes these settings.

A training has a fixed number of steps, whatever the dataset: what it costs an image seen is for other benchmarks, here it shows
what opening and checking the dataset adds. Each step is measured once, with the page cache as it happens to be.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import cost_table
from benchmarks.process_cost import measure
from benchmarks.s3_server import BUCKET, Server, s3_server
from pipeline.steps import OUTPUT, STEPS, Step

FORMS = ("plain", "shards", "s3")
SHARD_MB = 32
DIER = [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())"]
MIGRATE = "from components.tracking.client import connect; connect().search_experiments()"
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"source": "npz", "name": "made", "licence": "unknown"},
    "model": {"size": "demo", "patch_size": 7, "pool": "mean", "embed_dim": 128},
    "train": {"steps": 300, "batch_size": 64, "warmup_steps": 20, "compile": "off", "min_gap": 0.0},
    "embed": {"timesteps": [100, 300]},
    "probe": {"c_grid": [0.1], "baseline_timesteps": [100, 300]},
    "register": {"min_accuracy": 0.0},
}


@dataclass(frozen=True)
class Place:
    """Where one size in one form is worked on."""

    form: str
    images: int
    folder: Path
    environment: Mapping[str, str]
    server: Server | None = None

    @property
    def params(self) -> Path:
        """The settings file."""
        return self.folder / "params.yaml"

    def artifact(self, name: str) -> Path:
        """An artifact, or the folder of running checkpoints."""
        return self.folder / name

    def command(self, step: Step) -> list[str]:
        """The step's command line."""
        inputs = [word for name in step.inputs for word in (f"--{name}", str(self.artifact(name)))]
        return [*DIER, step.name, "--params", str(self.params), *inputs, "--out", str(self.artifact(step.output))]


def settings(form: str, images: int, file: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """What goes into the settings file."""
    made = {name: dict(section) for name, section in SETTINGS.items()}
    made["data"]["path"] = str(file.absolute())
    if form != "plain":
        made["data"]["shard_mb"] = SHARD_MB
    if form == "s3":
        made["data"]["store"] = f"s3://{BUCKET}/{images}"
    for override in overrides:
        key, _, value = override.partition("=")
        section, _, name = key.partition(".")
        made.setdefault(section, {})[name] = yaml.safe_load(value)
    return made


def run(place: Place, step: Step) -> dict[str, Any] | None:
    """Run a step and give its row; None, and a line, where an artifact that it needs is not there."""
    missing = [name for name in step.inputs if name != "work" and not place.artifact(name).is_dir()]
    if missing:
        print(f"{place.form} {place.images} {step.name}: not run, there is no {' and no '.join(missing)}", flush=True)
        return None
    if "work" in step.inputs:  # a training that ended there would not train
        shutil.rmtree(place.artifact("work"), ignore_errors=True)
    log = place.folder / f"{step.name}.log"
    before = place.server.counts() if place.server else (0, 0)
    cost = measure(place.command(step), log, place.environment)
    row = {"form": place.form, "images": place.images, "step": step.name, **asdict(cost)}
    if place.server:
        received, sent = place.server.counts()
        row |= {"store_written": received - before[0], "store_read": sent - before[1]}
    told = f"{cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of processor time, {cost.memory / 2**20:.0f} MiB"
    print(f"{place.form} {place.images} {step.name}: {told}", flush=True)
    if cost.code:
        said = log.read_text("utf-8", "replace").strip().splitlines()
        print(f"  exit {cost.code}: {said[-1] if said else 'no word'}", flush=True)
    return row


def run_all(place: Place, steps: list[str], out: Path, setup: dict[str, Any]) -> None:
    """Measure the steps that have no row yet, and those again whose artifact a later one needs and that is gone."""
    for step in STEPS:
        later = [other.name for other in STEPS if step.output in other.inputs]
        there = done(out, setup, place)
        needed = not place.artifact(step.output).is_dir() and any(name in steps and name not in there for name in _closure(later))
        if (step.name in steps and step.name not in there) or needed:
            row = run(place, step)
            if row is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"setup": setup}) + "\n")


def _closure(names: list[str]) -> set[str]:
    """These steps and all that build on them."""
    found = set(names)
    for step in STEPS:
        if any(OUTPUT[name] in step.inputs for name in found):
            found.add(step.name)
    return found


def read(out: Path, setup: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of this setup; a line that was cut off is none."""
    rows = []
    for text in out.read_text("utf-8").splitlines() if out.is_file() else []:
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if row["setup"] == setup:
            rows.append(row)
    return rows


def done(out: Path, setup: dict[str, Any], place: Place) -> set[str]:
    """Steps that have a row."""
    return {row["step"] for row in read(out, setup) if (row["form"], row["images"]) == (place.form, place.images)}


@contextlib.contextmanager
def places(args: argparse.Namespace, form: str) -> Iterator[Iterator[Place]]:
    """A place for each size, all with the same server."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(s3_server()) if form == "s3" else None
        yield (_place(args, form, images, server) for images in sorted(args.images))


def _place(args: argparse.Namespace, form: str, images: int, server: Server | None) -> Place:
    file = Path(args.data.format(images))
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        words = [*map(str, args.real), "--images", str(images), "--out", str(file)]
        subprocess.run([sys.executable, "-m", "benchmarks.images", *words], check=True)  # noqa: S603
    folder = args.work.absolute() / f"{form}-{images}"
    if server:  # it is empty: what an earlier one held is gone
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "mlflow.db"
    environment = dict(os.environ) | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"} | (server.environment() if server else {})
    if not store.is_file():  # its tables take seconds to make, once in the life of a registry
        subprocess.run([sys.executable, "-c", MIGRATE], env=environment, check=True, capture_output=True)  # noqa: S603
    place = Place(form, images, folder, environment, server)
    place.params.write_text(yaml.safe_dump(settings(form, images, file, args.set)), "utf-8")
    return place


def main() -> int:
    """Measure what is missing, print the tables; 1 where something grows too fast."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--form", choices=FORMS, nargs="+", default=["plain"])
    parser.add_argument("--steps", choices=names, nargs="+", default=names)
    parser.add_argument("--data", default=".work/images/{}.npz", help="npz files by number of images; missing ones are made")
    parser.add_argument(
        "--real", type=Path, nargs="+", default=[], help="real images, which they are made from (benchmarks.images)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="another setting (repeatable)")
    parser.add_argument("--out", type=Path, default=Path("cost.jsonl"), help="results, a line each")
    parser.add_argument("--work", type=Path, default=Path(".work/cost"), help="artifacts and logs, a folder a form and size")
    parser.add_argument("--keep", action="store_true", help="leave the artifacts of a size when all its steps are measured")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what stands in --out")
    args = parser.parse_args()
    setup = {"data": args.data, "set": args.set, "threads": os.environ.get("OMP_NUM_THREADS")}
    for form in [] if args.table else args.form:
        with places(args, form) as each:
            for place in each:
                run_all(place, args.steps, args.out, setup)
                if not args.keep and done(args.out, setup, place) >= set(args.steps):
                    shutil.rmtree(place.folder)
    rows = [row for row in read(args.out, setup) if row["form"] in args.form and row["images"] in args.images]
    print(f"\n{cost_table.table(rows)}")
    steep = cost_table.too_steep(rows)
    for line in steep:
        print(f"grows too fast: {line}")
    return bool(steep)


if __name__ == "__main__":
    sys.exit(main())
