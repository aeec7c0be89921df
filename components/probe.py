"""probe: linear probes of every representation over t, chosen on val, read once on test, to curve, metrics and conclusions."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.progress import say, track
from components.common.settings import ProbeSettings
from components.probing.conclusions import ONE_CLASS, comparisons, peak, warnings
from components.probing.metrics import Estimate, predicted
from components.probing.representations import candidates
from components.probing.sweep import Scored, Sweep, Tested, best_of
from data.format import SPLITS, open_dataset
from model.config import ModelConfig
from model.schedule import log_snr

COLUMNS = ["t", "log_snr", "representation", "split", "metric", "value", "low", "high", "c"]


def run(probe_settings: ProbeSettings, dataset: Path, model: Path, embeddings: Path, out: Path) -> None:
    """Write the probe artifact. Raises ArtifactError where the artifacts do not belong together."""
    data, trained = artifact.read(dataset, "dataset"), artifact.read(model, "model")
    embedded = artifact.read(embeddings, "embeddings")
    made_from = {"dataset": data.fingerprint, "model": trained.fingerprint}
    if embedded.made_from != made_from:
        raise ArtifactError(
            f"the embeddings {embeddings} are of another dataset or model than {dataset} and {model}: run embed again"
        )
    if missing := set(SPLITS) - set(embedded.json("embeddings.json")["splits"]):
        raise SettingsError(f"embed.splits lacks {', '.join(sorted(missing))}: a probe needs train, val and test")

    sweep = Sweep(probe_settings, open_dataset(dataset))
    found = list(candidates(probe_settings, sweep.dataset, trained, embedded))
    scored = [sweep.score(one) for one in track(found, len(found), "probe", "fits")]
    best = best_of(scored)
    tested = {name: sweep.test(one) for name, one in best.items()}
    schedule = ModelConfig.load(model / "config.json").schedule
    metrics = _metrics(sweep, schedule, scored, best, tested)
    for sentence in [metrics["peak"]["sentence"], *metrics["conclusions"]]:
        say(f"probe: {sentence}")
    with artifact.create(out, "probe", made_from | {"embeddings": embedded.fingerprint}) as folder:
        artifact.write_json(folder / "metrics.json", metrics)
        _write_curve(folder / "curve.csv", schedule, scored, list(tested.values()))
        _write_predictions(folder, sweep, tested["dier"])


def _metrics(
    sweep: Sweep, schedule: str, scored: list[Scored], best: dict[str, Scored], tested: dict[str, Tested]
) -> dict[str, Any]:
    info, settings = sweep.dataset.info, sweep.settings
    dier, boot = tested["dier"], sweep.bootstraps["test"]
    differences = {name: boot.mean(dier.test_correct - other.test_correct) for name, other in tested.items() if name != "dier"}
    curve = [one for one in scored if one.candidate.representation == "dier"]
    return {
        "dataset": info.name,
        "task": info.task,
        "class_names": info.class_names,
        "representation": "dier",
        "log_snr": log_snr(dier.scored.candidate.t or 0, schedule),
        **_chosen(dier),
        "baselines": {name: _chosen(tested[name]) | {"difference": gain.row()} for name, gain in differences.items()},
        **_findings(sweep, curve, differences, best),
        "embed_dim": dier.scored.probe.weight.shape[1],
        "train_images": len(sweep.chosen),
        "seeds": {"probe": settings.seed, "bootstrap_resamples": settings.bootstrap},
    }


def _findings(sweep: Sweep, curve: list[Scored], differences: dict[str, Estimate], best: dict[str, Scored]) -> dict[str, Any]:
    info = sweep.dataset.info
    if len(info.class_names) < 2 and not info.multi_label:
        return {"peak": {"t": curve[0].candidate.t, "kind": "none", "sentence": ONE_CLASS}, "conclusions": []}
    chance = None if info.multi_label else float(np.bincount(sweep.labels("val")).max() / info.counts["val"])
    conclusions = comparisons(differences) + warnings(best, chance)
    return {"peak": peak(curve, sweep.bootstraps["val"]), "conclusions": conclusions}


def _chosen(tested: Tested) -> dict[str, Any]:
    scored = tested.scored
    return {"t": scored.candidate.t, "c": scored.c, "val": _rows(scored.val), "test": _rows(tested.test)}


def _rows(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {metric: estimate.row() for metric, estimate in estimates.items()}


def _write_curve(file: Path, schedule: str, scored: Sequence[Scored], tested: Sequence[Tested]) -> None:
    parts = [(one, "val", one.val) for one in scored] + [(one.scored, "test", one.test) for one in tested]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for one, split, estimates in parts:
            t = one.candidate.t
            level = None if t is None else round(log_snr(t, schedule), 4)
            place = {"t": t, "log_snr": level, "representation": one.candidate.representation}
            for metric, estimate in estimates.items():
                writer.writerow({**place, "split": split, "metric": metric, **estimate.row(), "c": one.c})


def _write_predictions(folder: Path, sweep: Sweep, tested: Tested) -> None:
    labels = sweep.labels("test")
    guess = predicted(tested.test_scores, labels.ndim == 2)
    table = pd.DataFrame(
        {"index": np.arange(len(labels)), "label": list(labels), "dier": list(guess), "correct": tested.test_correct}
    )
    table.to_parquet(folder / "predictions.parquet", index=False)
    probe = tested.scored.probe
    save_file({"weight": np.ascontiguousarray(probe.weight), "bias": probe.bias}, folder / "classifier.safetensors")
    if labels.ndim == 1:
        names = sweep.dataset.info.class_names
        confusion = pd.DataFrame({"actual": [names[i] for i in labels], "predicted": [names[i] for i in guess]})
        confusion.to_csv(folder / "confusion.csv", index=False, lineterminator="\n")
