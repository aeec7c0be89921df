"""probe: linear probes of every representation over t, chosen on val, read once on test, to curve, metrics and conclusions.

Where the labels tell nothing apart, what can be measured without them (components/probing/unlabelled.py) takes the probes' place.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from components.common import artifact
from components.common.errors import SettingsError
from components.common.lineage import check_one_run
from components.common.progress import say, track
from components.common.settings import ProbeSettings
from components.probing import reference
from components.probing.baselines import ALONE, SIDE_BY_SIDE
from components.probing.conclusions import OF_A_VARIANT, UNUSED, chance, comparisons, peak, sampled, warnings
from components.probing.metrics import Estimate, right_of
from components.probing.representations import candidates, side_by_side
from components.probing.sweep import Scored, Sweep, Tested
from components.probing.unlabelled import examine
from components.selecting.places import side_by_side as neighbours
from data.format import SPLITS, Dataset, open_dataset
from model.config import ModelConfig
from model.schedule import log_snr

COLUMNS = ["t", "log_snr", "representation", "variant", "split", "metric", "value", "low", "high", "c"]


def run(probe_settings: ProbeSettings, dataset: Path, model: Path, embeddings: Path, out: Path) -> None:
    """Write the probe artifact. Raises ArtifactError where the artifacts do not belong together."""
    data, trained = artifact.read(dataset, "dataset"), artifact.read(model, "model")
    embedded = artifact.read(embeddings, "embeddings")
    check_one_run(data, trained, embedded)
    if missing := set(SPLITS) - set(embedded.json("embeddings.json")["splits"]):
        raise SettingsError(f"embed.splits lacks {', '.join(sorted(missing))}: a probe needs train, val and test")

    opened, sources = open_dataset(dataset), {one.kind: one.fingerprint for one in (data, trained, embedded)}
    if not opened.info.labelled:
        found = examine(probe_settings, opened, trained, embedded)
        _say(trained, found.metrics)
        with artifact.create(out, "probe", sources) as folder:
            artifact.write_json(folder / "metrics.json", found.metrics)
            _write_rows(folder / "curve.csv", found.curve)
            kept = pa.table({"index": found.kept.index, "kept": found.kept.share})
            pq.write_table(kept.replace_schema_metadata({"measure": found.kept.measure}), folder / "neighbours.parquet")
            _write_reference(folder, probe_settings, opened, embedded, found.metrics)
        return
    sweep = Sweep(probe_settings, opened)
    each = list(candidates(probe_settings, sweep.dataset, trained, embedded))
    scored = [sweep.score(one) for one in track(each, len(each), "probe", "candidates")]
    curve = list(sweep.best(scored, lambda one: (one.representation, one.t)).values())
    schedule = ModelConfig.load(model / "config.json").schedule
    facts = embedded.json("embeddings.json")
    timesteps = [_best_t(sweep, curve)]
    if facts.get("k", 1) > 1:
        timesteps = neighbours(timesteps[0], facts["k"], schedule, facts["timesteps"])
        scored = [sweep.score(one) for one in side_by_side(probe_settings, sweep.dataset, embedded, timesteps)]
        curve += sweep.best(scored, lambda one: one.representation).values()
    best = sweep.best(curve, lambda one: one.representation)
    tested = {name: sweep.test(one) for name, one in best.items()}
    if SIDE_BY_SIDE in tested:
        tested = {"dier": tested.pop(SIDE_BY_SIDE), ALONE: tested.pop("dier"), **tested}
    metrics = _metrics(sweep, schedule, tested, timesteps) | _findings(sweep, curve, tested)
    _say(trained, metrics)
    with artifact.create(out, "probe", sources) as folder:
        artifact.write_json(folder / "metrics.json", metrics)
        _write_curve(folder / "curve.csv", schedule, curve, list(tested.values()))
        _write_predictions(folder, sweep, tested["dier"])
        _write_reference(folder, probe_settings, opened, embedded, metrics)


def _say(trained: artifact.Artifact, metrics: dict[str, Any]) -> None:
    """Say what was found, first of all, there too, that the encoder is not used, and of which variant of DiER it is."""
    summary = trained.json("summary.json")
    if summary.get("method", "DiER") != "DiER":
        metrics["conclusions"].insert(0, OF_A_VARIANT.format(method=summary["method"]))
    if not summary.get("encoder_used", True):
        metrics["conclusions"].insert(0, UNUSED)
    for sentence in [metrics["peak"]["sentence"], *metrics["conclusions"]]:
        say(f"probe: {sentence}")


def _best_t(sweep: Sweep, curve: Sequence[Scored]) -> int:
    """The t of DiER that is best on val."""
    (best,) = sweep.best((one for one in curve if one.candidate.representation == "dier"), lambda one: one.representation).values()
    assert best.candidate.t is not None
    return best.candidate.t


def _metrics(sweep: Sweep, schedule: str, tested: dict[str, Tested], timesteps: list[int]) -> dict[str, Any]:
    """`t` is the best single one, also where DiER stands for several side by side, `timesteps`."""
    info, settings, dier = sweep.dataset.info, sweep.settings, tested["dier"]
    baselines = {name: one for name, one in tested.items() if name != "dier"}
    t = tested.get(ALONE, dier).scored.candidate.t
    return {
        "dataset": info.name,
        "task": info.task,
        "class_names": info.class_names,
        "representation": "dier",
        "chosen_by": sweep.chosen_by,
        "log_snr": log_snr(t or 0, schedule),
        **_chosen(dier),
        "t": t,
        **({"timesteps": timesteps} if len(timesteps) > 1 else {}),
        "baselines": {name: _chosen(one) | {"difference": _rows(_differences(dier, one))} for name, one in baselines.items()},
        "embed_dim": dier.scored.probe.weight.shape[1],
        "train_images": len(sweep.train_images),
        **({"copies": info.copies} if info.copies > 1 else {}),
        "seeds": {"probe": settings.seed, "bootstrap_resamples": settings.bootstrap},
    }


def _differences(dier: Tested, other: Tested) -> dict[str, Estimate]:
    """DiER minus a baseline on test, paired, by metric."""
    return {metric: found.minus(other.test[metric]) for metric, found in dier.test.items()}


def _findings(sweep: Sweep, curve: list[Scored], tested: dict[str, Tested]) -> dict[str, Any]:
    info, metric = sweep.dataset.info, sweep.chosen_by
    over_t = [one for one in curve if one.candidate.representation == "dier"]
    differences = {name: _differences(tested["dier"], one)[metric] for name, one in tested.items() if name != "dier"}
    best = {name: one.scored for name, one in tested.items()}
    conclusions = comparisons(differences, metric) + warnings(best, metric, chance(sweep.labels("val"), metric))
    conclusions += sampled(len(sweep.train_images), info.counts["train"])
    return {"peak": peak(over_t, metric), "conclusions": conclusions}


def _chosen(tested: Tested) -> dict[str, Any]:
    scored = tested.scored
    candidate = scored.candidate
    return {"t": candidate.t, "variant": candidate.variant, "c": scored.c, "val": _rows(scored.val), "test": _rows(tested.test)}


def _rows(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {metric: estimate.row() for metric, estimate in estimates.items()}


def _write_curve(file: Path, schedule: str, scored: Sequence[Scored], tested: Sequence[Tested]) -> None:
    parts = [(one, "val", one.val) for one in scored] + [(one.scored, "test", one.test) for one in tested]
    rows = []
    for one, split, estimates in parts:
        t = one.candidate.t
        level = None if t is None else round(log_snr(t, schedule), 4)
        place = {"t": t, "log_snr": level, "representation": one.candidate.representation, "variant": one.candidate.variant}
        for metric, estimate in estimates.items():
            rows.append({**place, "split": split, "metric": metric, **estimate.row(), "c": one.c})
    _write_rows(file, rows)


def _write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_predictions(folder: Path, sweep: Sweep, tested: Tested) -> None:
    labels, guess = sweep.labels("test"), tested.guess
    columns = {"index": np.arange(len(labels)), "label": labels, "dier": guess, "correct": right_of(guess, labels)}
    pq.write_table(pa.table({name: _column(values) for name, values in columns.items()}), folder / "predictions.parquet")
    probe = tested.scored.probe
    save_file({"weight": np.ascontiguousarray(probe.weight), "bias": probe.bias}, folder / "classifier.safetensors")
    if labels.ndim == 1:
        names = np.array(sweep.dataset.info.class_names, object)
        confusion = pd.DataFrame({"actual": names[labels], "predicted": names[guess]})
        confusion.to_csv(folder / "confusion.csv", index=False, lineterminator="\n")


def _write_reference(
    folder: Path, settings: ProbeSettings, dataset: Dataset, embedded: artifact.Artifact, metrics: Mapping[str, Any]
) -> None:
    if settings.reference:
        timesteps = metrics.get("timesteps", [metrics["t"]])
        reference.write(folder, dataset, embedded, timesteps, settings.reference, settings.seed)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    """Numbers (N,), or a list of L numbers an image (N, L)."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
