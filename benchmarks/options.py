"""Does an option help? Each against the default by linear probe on validation images, on several sets and seeds.

    python benchmarks/options.py fashionmnist.npz cifar10.npz --seeds 0 1 2 --steps 4500 --out options.jsonl
    python benchmarks/options.py fashionmnist.npz --quick                     # a smoke test: its figures mean nothing
    python benchmarks/options.py fashionmnist.npz --out options.jsonl --table # what stands in the file so far

The sets are npz files in MedMNIST's layout with train and val (docs/data.md); test is never read. The order is seed by seed, and
within a seed option by option, so whatever the machine does meanwhile hits all alike, and a run that is stopped has compared them
on whole seeds. Each result is a line of `--out`; the same command goes on where it ended, inside a training too (`--work`). Data
and models come from the pipeline's own steps (prepare, validate, train). Each is compared at its best t and C, chosen on the very
validation images that are reported: alike for all, and a little flattering to all.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from components import prepare, train, validate
from components.common import artifact
from components.common.settings import Settings, override, parse
from components.probing.classifier import fit_grid
from data.format import Dataset, open_dataset
from model.features import embed
from model.weights import load_model

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "keep best_probe": {"train": {"keep": "best_probe"}},
    "views crop": {"train": {"views": "crop"}},
    "views crop_flip": {"train": {"views": "crop_flip"}},
    "views crop_flip_colour": {"train": {"views": "crop_flip_colour"}},
    "views, identity 0.2": {"train": {"views": "crop_flip_colour", "identity_share": 0.2}},
    "variance_covariance 0.1": {"train": {"variance_covariance": 0.1}},
    "mask_ratio 0.5": {"train": {"mask_ratio": 0.5}},
    "schedule cosine": {"model": {"schedule": "cosine"}},
    "loss_weight min_snr": {"train": {"loss_weight": "min_snr"}},
    "prediction v": {"model": {"prediction": "v"}},
    "prediction x0": {"model": {"prediction": "x0"}},
    "prediction v, min_snr": {"model": {"prediction": "v"}, "train": {"loss_weight": "min_snr"}},
    "condition_dropout 0.1": {"train": {"condition_dropout": 0.1}},
    "modulation single": {"model": {"modulation": "single"}},
    "modulation low_rank": {"model": {"modulation": "low_rank", "modulation_rank": 16}},
    "pool mean": {"model": {"pool": "mean"}},
    "pool grid": {"model": {"pool": "grid"}},
    "pool attention": {"model": {"pool": "attention"}},
}
MODEL = {"depth": 3, "width": 128, "heads": 4, "embed_dim": 512, "pool": "flat", "prediction": "eps"}
"""As in the Fashion-MNIST preset; a patch is a quarter of the image's side."""
LOOKS = 10
"""Looks of best_probe in a training."""
TIMESTEPS = [0, 50, 100, 300, 600]
C_GRID = [0.003, 0.01, 0.03, 0.1, 0.3]
PROBE_IMAGES = 5000
"""Of train and of val each, a seeded choice that is the same for all."""


def settings(file: Path, option: str, seed: int, args: argparse.Namespace) -> Settings:
    """The settings of one training."""
    with np.load(file, allow_pickle=False) as content:
        side = content["val_images"].shape[1]
    raw: dict[str, dict[str, Any]] = {
        "data": {"source": "npz", "name": file.stem, "path": str(file), "limit": args.limit},
        "model": MODEL | {"patch_size": side // 4},
        "train": {
            "steps": args.steps,
            "batch_size": args.batch_size,
            "lr": args.lr,
            "warmup_steps": min(200, args.steps // 10),
            "seed": seed,
            "log_every": max(1, args.steps // 10),
            "probe_every": max(1, args.steps // LOOKS) if option == "keep best_probe" else 0,
            "min_gap": 0.0,  # a short training may not use v_t yet, and is to be compared all the same
        },
    }
    for text in args.set:
        override(raw, text)
    for section, values in OPTIONS[option].items():
        raw[section] |= values
    return parse(raw, option)


def measure(file: Path, option: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train once and probe once."""
    chosen = settings(file, option, seed, args)
    folder = args.work / f"{file.stem}-{args.limit}"
    dataset, verdict = folder / "dataset", folder / "verdict"
    if not verdict.exists():
        for made in (dataset, verdict):
            artifact_gone(made)
        prepare.run(data_settings=chosen.data, out=dataset)
        validate.run(validate_settings=chosen.validate_, dataset=dataset, out=verdict)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        train.run(chosen.model, chosen.train, dataset, verdict, folder / "train", Path(out) / "model")
        seconds = time.monotonic() - began
        accuracy, t, c = probe(open_dataset(dataset), Path(out) / "model")
        summary = artifact.read(Path(out) / "model", "model").json("summary.json")
    row = {"accuracy": accuracy, "t": t, "c": c, "seconds": round(seconds, 1), "gap": max(row["ratio"] for row in summary["gap"])}
    return row | ({"kept": summary["kept"]["step"]} if "kept" in summary else {})


def artifact_gone(path: Path) -> None:
    """Remove what a run that was stopped left of an artifact."""
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    if path.exists():
        path.rmdir()


def probe(dataset: Dataset, model: Path) -> tuple[float, int, float]:
    """The best accuracy on val over t and C, and where it is."""
    network = load_model(model)
    images, labels = {}, {}
    for name in ("train", "val"):
        split = dataset.split("train" if name == "train" else "val")
        chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:PROBE_IMAGES])
        images[name], labels[name] = np.asarray(split.images[chosen]), np.asarray(split.labels[chosen])
    found = []
    for t in TIMESTEPS:
        v = {name: embed(network, images[name], t) for name in images}
        for c, fitted in fit_grid(v["train"], labels["train"], len(dataset.info.class_names), C_GRID, 200):
            found.append((float((fitted.scores(v["val"]).argmax(1) == labels["val"]).mean()), t, c))
    return max(found)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread over seeds, and the paired difference to the default with its 95 % interval (Student's t)."""
    lines = [
        "| set | option | seeds | val accuracy, % (sd) | minus default, points | helps | t | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        by_option = {o: {row["seed"]: row for row in rows if (row["data"], row["option"]) == (data, o)} for o in OPTIONS}
        base = by_option["default"]
        for option, runs in by_option.items():
            if runs:
                lines.append(line(data, option, runs, base))
    return "\n".join(lines)


def line(data: str, option: str, runs: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    """One row of the table."""
    scores = np.array([100 * row["accuracy"] for row in runs.values()])
    spread = f" ({scores.std(ddof=1):.2f})" if len(scores) > 1 else ""
    difference, helps = "", ""
    paired = np.array([100 * (row["accuracy"] - base[seed]["accuracy"]) for seed, row in runs.items() if seed in base])
    if option != "default" and len(paired):
        difference, helps = f"{paired.mean():+.2f}", "not known: one seed"
        if len(paired) > 1:
            half = stats.t.ppf(0.975, len(paired) - 1) * paired.std(ddof=1) / len(paired) ** 0.5
            low, high = paired.mean() - half, paired.mean() + half
            difference += f" [{low:+.2f}, {high:+.2f}]"
            helps = "yes" if low > 0 else "no, it harms" if high < 0 else "not shown"
    at = ", ".join(str(row["t"]) for row in runs.values())
    seconds = np.mean([row["seconds"] for row in runs.values()])
    return f"| {data} | {option} | {len(runs)} | {scores.mean():.2f}{spread} | {difference} | {helps} | {at} | {seconds:.0f} |"


def read(out: Path, setup: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of this very setup that the file holds; a line that was cut off is none."""
    rows = []
    for text in out.read_text("utf-8").splitlines() if out.is_file() else []:
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if row["setup"] == setup:
            rows.append(row)
    return rows


def main() -> None:
    """Measure what the file does not hold yet, then print the table."""
    parser = argparse.ArgumentParser(description="Each option against the default, by validation probe.")
    parser.add_argument("files", nargs="+", type=Path, help="npz files in MedMNIST's layout")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=list(OPTIONS), help="the default always comes first")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--limit", type=int, default=None, help="images per split")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=VALUE", help="for all alike, such as model.width=64")
    parser.add_argument("--out", type=Path, default=Path("options.jsonl"), help="results, a line each")
    parser.add_argument("--work", type=Path, default=Path(".work/options"), help="datasets and running checkpoints")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what stands in --out")
    parser.add_argument("--quick", action="store_true", help="a smoke test: seed 0, 20 steps, 500 images, a folder of its own")
    args = parser.parse_args()
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:////nowhere/mlflow.db"  # none of this is for the tracking server
    if args.quick:
        args.seeds, args.steps, args.batch_size, args.limit = [0], 20, 32, 500
        args.work = Path(tempfile.mkdtemp(prefix="options-"))
        args.out = args.work / "options.jsonl"
    setup = {"steps": args.steps, "batch_size": args.batch_size, "lr": args.lr, "limit": args.limit}
    if args.set:
        setup["set"] = sorted(args.set)
    plan = [
        (file, seed, option) for seed in args.seeds for file in args.files for option in dict.fromkeys(["default", *args.options])
    ]
    for file, seed, option in [] if args.table else plan:
        if any((row["data"], row["seed"], row["option"]) == (file.stem, seed, option) for row in read(args.out, setup)):
            continue
        row = {"data": file.stem, "seed": seed, "option": option} | measure(file, option, seed, args) | {"setup": setup}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(row) + "\n")
    print(table(read(args.out, setup)))


if __name__ == "__main__":
    main()
