"""Five artifacts that belong together, for the report: real digits, a really (briefly) trained model and its embeddings.

The verdict is a stand-in in the contract's shape.
"""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from components import probe
from components.common import artifact
from components.common.settings import ProbeSettings
from components.embedding import store
from data.format import MULTI_LABEL, DatasetInfo, write_info
from model.config import ModelConfig
from model.features import embed, shuffled_gap
from model.training.options import TrainConfig
from model.training.trainer import Trainer
from model.weights import load_model, save_model

COUNTS = {"train": 240, "val": 60, "test": 60}
PROBE = ProbeSettings(c_grid=[0.1], baseline_timesteps=[0, 100], bootstrap=100)
Paths = dict[str, Path]


def make(
    root: Path,
    task: str = "multi-class",
    channels: int = 1,
    timesteps: Sequence[int] = (0, 300, 999),
    train_steps: int = 30,
    class_names: list[str] | None = None,
    collapsed: bool = False,
    labelled: bool = True,
) -> Paths:
    """Write the five artifacts under `root`; gives their paths by kind. Embeddings are of train, val and test."""
    paths = {kind: root / kind for kind in ("dataset", "verdict", "model", "embeddings", "probe")}
    _dataset(paths["dataset"], task, channels, class_names, labelled)
    _verdict(paths)
    _model(paths, train_steps, collapsed)
    _embeddings(paths, list(timesteps), collapsed)
    probe.run(PROBE, paths["dataset"], paths["model"], paths["embeddings"], paths["probe"])
    return paths


def without(paths: Paths, split: str, root: Path) -> Paths:
    """The same embeddings and probe as if `split` had not been embedded (which the probe would refuse)."""
    changed = paths | {"embeddings": root / "embeddings", "probe": root / "probe"}
    with artifact.create(changed["embeddings"], "embeddings", made_from(paths, "dataset", "model")) as folder:
        shutil.copytree(paths["embeddings"], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifact.MANIFEST, split))
    with artifact.create(changed["probe"], "probe", made_from(changed, "dataset", "model", "embeddings")) as folder:
        shutil.copytree(paths["probe"], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifact.MANIFEST))
    return changed


def made_from(paths: Paths, *kinds: str) -> dict[str, str]:
    return {kind: artifact.read(paths[kind], kind).fingerprint for kind in kinds}


def _dataset(out: Path, task: str, channels: int, class_names: list[str] | None, labelled: bool) -> None:
    images, digits = load_digits(return_X_y=True)
    pixels = np.repeat((images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8), channels, axis=3)
    if channels == 3:  # tinted by class, so that colour is seen to be kept
        pixels[..., 2] = pixels[..., 2] // (1 + digits[:, None, None] % 3)
    labels, names = _labels(digits, task) if labelled else (np.zeros(len(digits), np.int64), ["unlabelled"])
    names = class_names or names
    start = 0
    with artifact.create(out, "dataset", {}) as folder:
        for split, count in COUNTS.items():
            here = slice(start, start + count)
            start = here.stop
            (folder / split).mkdir()
            np.save(folder / split / "images.npy", pixels[here])
            np.save(folder / split / "labels.npy", labels[here])
        notes = ["val cut from train, seed 0"]
        write_info(folder, DatasetInfo("digits", "scikit-learn", "BSD", task, names, [8, 8, channels], COUNTS, notes))


def _labels(digits: Any, task: str) -> tuple[Any, list[str]]:
    if task == MULTI_LABEL:
        return np.stack([digits % 2 == 0, digits > 4, digits == 99], axis=1).astype(np.uint8), ["even", "above four", "never"]
    if task == "binary-class":
        return (digits > 4).astype(np.int64), ["small", "large"]
    return digits.astype(np.int64), [str(digit) for digit in range(10)]


def _verdict(paths: Paths) -> None:
    expectations = [
        ("images are uint8", "error", True, "uint8", "uint8", "every split holds uint8 images"),
        ("exact copies in train", "warning", False, 0.02, 0.01, "2 % of train are exact copies of another image"),
        ("leaks into train", "error", True, 0, 0.001, "no val or test image stands in train"),
    ]
    keys = ("name", "severity", "passed", "observed", "limit", "message")
    verdict = {
        "passed": True,
        "warnings": 1,
        "expectations": [dict(zip(keys, row, strict=True)) for row in expectations],
        "near_duplicates": {"val": {"count": 2, "share": 0.033}, "test": {"count": 0, "share": 0.0}},
        "pairs": [{"split": "val", "index": 3, "other_split": "train", "other_index": 7, "distance": 0.021}],
    }
    with artifact.create(paths["verdict"], "verdict", made_from(paths, "dataset")) as folder:
        artifact.write_json(folder / "verdict.json", verdict)


def _model(paths: Paths, steps: int, collapsed: bool) -> None:
    images = np.load(paths["dataset"] / "train" / "images.npy")
    config = ModelConfig(2, 48, 3, 8, 8, images.shape[3], 2, 32)
    training = TrainConfig(
        steps=steps, warmup_steps=min(50, steps), lr_decay="constant", ema_decay=0.99, log_every=max(1, steps // 40)
    )
    trainer = Trainer(config, training, images, paths["model"].with_name("work"), torch.device("cpu"))
    trainer.run()
    with artifact.create(paths["model"], "model", made_from(paths, "dataset", "verdict")) as folder:
        save_model(folder, trainer.model, trainer.ema_weights())
        _csv(folder / "curve.csv", trainer.curve)
        model = load_model(folder)
        sizes = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("encoder", "denoiser")}
        gap = shuffled_gap(model, images[:200], [0, 100, 300, 500, 700, 900], seed=0)
        summary = {"steps": steps, "parameters": sizes, "gap": gap, "training_key": "ab" * 32} | {"encoder_used": not collapsed}
        artifact.write_json(folder / "summary.json", summary)


def _embeddings(paths: Paths, timesteps: list[int], collapsed: bool) -> None:
    model = load_model(paths["model"])
    with artifact.create(paths["embeddings"], "embeddings", made_from(paths, "dataset", "model")) as folder:
        for split in COUNTS:
            images, labels = (np.load(paths["dataset"] / split / f"{name}.npy") for name in ("images", "labels"))
            for t in timesteps:
                v = embed(model, images, t) * (0 if collapsed else 1)
                store.write(store.file_of(folder, split, t), labels, [v], "float32")
        facts = {"timesteps": timesteps, "splits": list(COUNTS), "dtype": "float32", "embed_dim": 32, "counts": COUNTS}
        artifact.write_json(folder / "embeddings.json", facts)


def _csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
