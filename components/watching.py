"""How good the embeddings are while training runs: the shuffled-v_t gap and a small linear probe, on val, at a few timesteps.

It looks at a copy of the averaged weights and draws from generators of its own: weights and curve are the same with it and without.
Labels are read for the probe, and reach nothing but the probe. What it finds goes to `watch.csv` in the work folder and to the live
points, never into the artifact.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from components.probing.classifier import Floats, Labels, fit_grid
from components.probing.metrics import correct
from components.progress import say
from data.errors import DataError
from data.format import Dataset, SplitName
from model.dier import DiER
from model.features import embed, shuffled_gap
from model.health import encoder_is_dead
from model.pixels import Images

TIMESTEPS = [0, 100, 300, 600]
GAP_IMAGES = 500
PROBE_TRAIN, PROBE_VAL = 2000, 2000
"""Images that the probe is fitted on and scored on: the 95 % interval of an accuracy of 0.8 on 2,000 images is +-0.018."""
C, MAX_ITER = 0.1, 100
"""One inverse L2 strength, no search: figures of one training are compared with each other, not with the probe step's."""
COLUMNS = ["step"] + [f"{name}_t{t:03d}" for name in ("gap", "spread", "probe") for t in TIMESTEPS]


class Watcher:
    """Looks at a model every now and then; `file` is `watch.csv`, which goes on where it ended.

    Raises DataError where there is no val split to look at.
    """

    def __init__(self, dataset: Dataset, seed: int, device: torch.device, file: Path) -> None:
        if not dataset.info.counts["val"]:
            raise DataError(f"train.probe_every needs val images, and {dataset.path} has none: set data.val_fraction, or it to 0")
        self._device, self._seed, self._file = device, seed, file
        self._images: dict[SplitName, Images] = {}
        self._labels: dict[SplitName, Labels] = {}
        for split, most in (("train", PROBE_TRAIN), ("val", PROBE_VAL)):
            opened = dataset.split(split)
            chosen = np.sort(np.random.default_rng([seed, most]).permutation(len(opened))[:most])
            self._images[opened.name] = np.asarray(opened.images[chosen])
            self._labels[opened.name] = np.asarray(opened.labels[chosen])
        multi_label = dataset.info.multi_label
        self._classes = 0 if multi_label else len(dataset.info.class_names)
        self._labelled = multi_label or self._classes > 1
        self._steps = self._mend()

    def look(self, step: int, model: Callable[[], DiER], point: Callable[[int, dict[str, float]], None]) -> None:
        """Measure the model of this step, unless that was done before the training was stopped; `point` is told, then the file.

        Whatever goes wrong here is said in one line and does not end the training.
        """
        if step in self._steps:
            return
        try:
            with torch.random.fork_rng(devices=[]):  # building a network draws from the global generator
                found = self._measure(model())
            point(step, found)
            with self._file.open("a", encoding="utf-8", newline="") as opened:
                csv.DictWriter(opened, COLUMNS, lineterminator="\n").writerow(
                    {"step": step} | {k: f"{v:.6g}" for k, v in found.items()}
                )
        except Exception as error:
            say(f"train: step {step}: could not look at the embeddings: {' '.join(str(error).split())}; training goes on")
            return
        self._steps.add(step)
        self._tell(step, found)

    def _measure(self, model: DiER) -> dict[str, float]:
        rows = shuffled_gap(model, self._images["val"][:GAP_IMAGES], TIMESTEPS, seed=self._seed, device=self._device)
        found = {f"gap_t{row['t']:03.0f}": row["ratio"] for row in rows}
        for t in TIMESTEPS:
            v = {split: embed(model, images, t, device=self._device) for split, images in self._images.items()}
            found[f"spread_t{t:03d}"] = spread(v["val"])
            if self._labelled:
                _, probe = next(fit_grid(v["train"], self._labels["train"], self._classes, [C], MAX_ITER))
                found[f"probe_t{t:03d}"] = float(correct(probe.scores(v["val"]), self._labels["val"]).mean())
        return found

    def _tell(self, step: int, found: dict[str, float]) -> None:
        gaps = {t: found[f"gap_t{t:03d}"] for t in TIMESTEPS}
        at = max(gaps, key=lambda t: gaps[t])
        line = f"train: step {step}: shuffling v_t raises the loss up to {gaps[at]:.3f} times (t = {at})"
        if self._labelled:
            probes = {t: found[f"probe_t{t:03d}"] for t in TIMESTEPS}
            best = max(probes, key=lambda t: probes[t])
            line += f"; probe on val up to {100 * probes[best]:.1f} % (t = {best})"
        say(line)
        if encoder_is_dead(gaps.values()):
            say(f"train: step {step}: so far the encoder is dead: v_t changes nothing at any t; if it stays so, lower train.lr")

    def _mend(self) -> set[int]:
        """The steps that the file holds; what was cut off, or has other columns, is dropped."""
        lines = self._file.read_text("utf-8", errors="replace").splitlines(keepends=True) if self._file.is_file() else []
        rows = [line for line in lines[1:] if line.endswith("\n") and line.count(",") == len(COLUMNS) - 1]
        if not lines or next(csv.reader(lines[:1])) != COLUMNS:
            rows = []
        beside = self._file.with_suffix(".partial")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(",".join(COLUMNS) + "\n" + "".join(rows), "utf-8")
        beside.replace(self._file)
        return {int(row.split(",", 1)[0]) for row in rows}


def spread(v: Floats) -> float:
    """How much embeddings v (N, D) differ between images: their standard deviation over images in units of their size (RMS)."""
    return float(np.sqrt(v.var(0).mean() / max(np.square(v).mean(), 1e-30)))
