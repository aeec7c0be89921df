"""How good the embeddings are while training runs: the shuffled-v_t gap and a small linear probe, on val, at a few timesteps.

It evaluates a copy of the averaged weights and draws from generators of its own: weights and curve are the same with it or without.
Labels are read for the probe, and reach nothing but the probe. What it finds goes to `watch.csv` in the work folder and to the live
points, never into the artifact. But under `train.keep: best_probe` the probe, and so labels, choose the step that is exported.
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from components.common.progress import say
from components.probing.classifier import Labels, fit_grid
from components.probing.metrics import correct, spread
from data.errors import DataError
from data.format import Dataset, SplitName
from model.atomic import write_whole
from model.dier import DiER
from model.features import embed, shuffled_gap
from model.images import Images
from model.rng import sample_rows
from model.training.callback import Callback
from model.training.divergence import encoder_is_dead
from model.training.trainer import Trainer

TIMESTEPS = [0, 100, 300, 600]
PROBE_TRAIN, PROBE_VAL = 2000, 2000
"""Images that the probe is fitted on and scored on: the 95 % interval of an accuracy of 0.8 on 2,000 images is +-0.018."""
SHARDS = 32
"""Shards of a split that these images come from at most: enough for what lies side by side, such as a class, to count little."""
C, MAX_ITER = 0.1, 100
"""One inverse L2 strength, no search: figures of one training are compared with each other, not with the probe step's."""
COLUMNS = ["step"] + [f"{name}_t{t:03d}" for name in ("gap", "spread", "probe") for t in TIMESTEPS]

Found = dict[str, float]


class OnlineProbe(Callback):
    """Evaluates the embeddings after every `every` steps, with `keep_best` after the last one too.

    Then the trainer is offered each evaluated step's best probe on val. `log` is given each step and what was found; `file` is
    `watch.csv`, which goes on where it ended. Raises DataError where there is no val split, or `keep_best` finds no labels.
    """

    def __init__(
        self,
        dataset: Dataset,
        every: int,
        *,
        seed: int,
        file: Path,
        log: Callable[[int, Found], None] = lambda step, found: None,
        keep_best: bool = False,
    ) -> None:
        if not dataset.info.counts["val"]:
            raise DataError(f"train.probe_every needs val images, and {dataset.path} has none: set data.val_fraction, or it to 0")
        multi_label = dataset.info.multi_label
        self._classes = 0 if multi_label else len(dataset.info.class_names)
        self._labelled = dataset.info.labelled
        if keep_best and not self._labelled:
            raise DataError(f"train.keep best_probe needs labels, and {dataset.path} has one class: set train.keep to last")
        self._every, self._seed, self._file, self._log, self._keep_best = every, seed, file, log, keep_best
        self._images: dict[SplitName, Images] = {}
        self._labels: dict[SplitName, Labels] = {}
        for split, most in (("train", PROBE_TRAIN), ("val", PROBE_VAL)):
            opened = dataset.split(split)
            chosen = sample_rows(seed, len(opened), opened.shards, most, SHARDS)  # of shards, which are read whole, some
            self._images[opened.name] = np.asarray(opened.images[chosen])
            self._labels[opened.name] = np.asarray(opened.labels[chosen])
        self._found = self._read()

    def on_step(self, trainer: Trainer) -> None:
        """Evaluate, where it is time, and offer the result."""
        if trainer.step % self._every == 0 or (self._keep_best and trainer.step == trainer.config.steps):
            found = self.evaluate(trainer.step, trainer.ema_model)
            if self._keep_best and found is not None:
                trainer.offer(max(value for name, value in found.items() if name.startswith("probe_")))

    def evaluate(self, step: int, model: Callable[[], DiER]) -> Found | None:
        """Measure the model of this step, unless that was done before the training was stopped; log it, then write it down.

        Gives what was found, as the file has it, so that it is the same number before and after a restart. Whatever goes wrong here
        is said in one line, gives None and does not end the training.
        """
        if step in self._found:
            return self._found[step]
        try:
            found = self._measure(model())
            self._log(step, found)
            row = {name: f"{value:.6g}" for name, value in found.items()}
            with self._file.open("a", encoding="utf-8", newline="") as opened:
                csv.DictWriter(opened, COLUMNS, lineterminator="\n").writerow({"step": step} | row)
        except Exception as error:
            say(f"train: step {step}: could not evaluate the embeddings: {' '.join(str(error).split())}; training goes on")
            return None
        self._found[step] = {name: float(text) for name, text in row.items()}
        self._say(step, found)
        return self._found[step]

    def _measure(self, model: DiER) -> Found:
        device = model.alpha_bar.device
        rows = shuffled_gap(model, self._images["val"], TIMESTEPS, seed=self._seed, device=device)
        found = {f"gap_t{row['t']:03.0f}": row["ratio"] for row in rows}
        for t in TIMESTEPS:
            v = {split: embed(model, images, t, device=device) for split, images in self._images.items()}
            found[f"spread_t{t:03d}"] = spread(v["val"])
            if self._labelled:
                _, probe = next(fit_grid(v["train"], self._labels["train"], self._classes, [C], MAX_ITER))
                found[f"probe_t{t:03d}"] = float(correct(probe.scores(v["val"]), self._labels["val"]).mean())
        return found

    def _say(self, step: int, found: Mapping[str, float]) -> None:
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

    def _read(self) -> dict[int, Found]:
        """What the file holds, by step; what was cut off, or has other columns, is dropped from it."""
        lines = self._file.read_text("utf-8", errors="replace").splitlines(keepends=True) if self._file.is_file() else []
        rows = [line for line in lines[1:] if line.endswith("\n") and line.count(",") == len(COLUMNS) - 1]
        if not lines or next(csv.reader(lines[:1])) != COLUMNS:
            rows = []
        write_whole(self._file, ",".join(COLUMNS) + "\n" + "".join(rows))
        return {
            int(row["step"]): {name: float(row[name]) for name in COLUMNS[1:] if row[name]} for row in csv.DictReader(rows, COLUMNS)
        }
