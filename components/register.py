"""The register step: judge the model, log it into its MLflow run, make it a version, and give it an alias."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from components.common import artifact
from components.common.errors import GateRefused
from components.common.lineage import check_one_run
from components.common.progress import say
from components.common.settings import RegisterSettings
from components.registry import package, versions
from components.registry.gate import Champion, Gate, Predictions, decide
from components.registry.provenance import provenance
from components.tracking.client import connect, one_line_errors, training_run
from components.tracking.complete_run import complete_run
from data.format import MULTI_LABEL

if TYPE_CHECKING:
    from mlflow import MlflowClient


def run(register_settings: RegisterSettings, verdict: Path, model: Path, probe: Path, report: Path, out: Path) -> None:
    """Make one registered version of this (model, probe) with its gate verdict, and an alias where it passed; write `out`.

    Raises ArtifactError when the inputs do not belong together, TrackingError when MLflow cannot be used, and GateRefused
    after everything is stored when the gate says no: such a version stands in the registry without an alias.
    """
    inputs = Inputs(verdict, model, probe, report)
    with artifact.create(out, "registration", inputs.fingerprints()) as folder:
        client = connect()
        with one_line_errors():
            registration = _register(client, register_settings, inputs)
        artifact.write_json(folder / "registration.json", registration)
    name, version = registration["name"], registration["version"]
    if not registration["gate"]["passed"]:
        raise GateRefused(
            f"the gate refused {name} version {version}: {'; '.join(registration['gate']['reasons'])}. It is registered without "
            f"an alias; better the model, or: dier promote {name} --version {version} --force --reason TEXT"
        )
    say(f"registered {name} version {version} ({', '.join(registration['aliases']) or 'no alias'}); the gate passed")


class Inputs:
    """The four input artifacts, read, checked, and found to belong together."""

    def __init__(self, verdict: Path, model: Path, probe: Path, report: Path) -> None:
        self.verdict = artifact.read(verdict, "verdict")
        self.model = artifact.read(model, "model")
        self.probe = artifact.read(probe, "probe")
        self.report = artifact.read(report, "report")
        self.dataset = self.model.made_from.get("dataset", "")
        check_one_run(self.verdict, self.model, self.probe, self.report)
        self.summary = self.model.json("summary.json")
        self.metrics = self.probe.json("metrics.json")
        self.digest = artifact.digest({"model": self.model.fingerprint, "probe": self.probe.fingerprint})

    def fingerprints(self) -> dict[str, str]:
        """What a registration is made from."""
        return {a.kind: a.fingerprint for a in (self.verdict, self.model, self.probe, self.report)}


def _register(client: "MlflowClient", settings: RegisterSettings, inputs: Inputs) -> dict[str, Any]:
    run = training_run(client, inputs.summary["training_key"], settings.experiment)
    complete_run(client, run, inputs.model, inputs.probe, inputs.report)
    _ensure_registered(client, settings.name)
    found = versions.versions(client, settings.name, [(versions.DIGEST_TAG, inputs.digest)])
    gate = _gate(client, settings, inputs, int(found[0].version) if found else None)
    tags = _tags(inputs, gate)
    if found:
        version = int(found[0].version)
        for key, value in tags.items():
            client.set_model_version_tag(settings.name, str(version), key, value)
    else:
        model_id = package.log_model(client, run, settings.name, inputs.model, inputs.probe)
        made = client.create_model_version(settings.name, f"models:/{model_id}", run.id, tags=tags, model_id=model_id)
        version = int(made.version)
    _set_alias(client, settings, version, gate)
    aliases = sorted(alias for alias, at in versions.aliases(client, settings.name).items() if at == version)
    return {
        "name": settings.name,
        "version": version,
        "digest": inputs.digest,
        "run_id": run.id,
        "gate": {"passed": gate.passed, "reasons": gate.reasons},
        "aliases": aliases,
    }


def _ensure_registered(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _gate(client: "MlflowClient", settings: RegisterSettings, inputs: Inputs, version: int | None) -> Gate:
    at = versions.aliases(client, settings.name).get(versions.CHAMPION)
    return decide(
        validated=bool(inputs.verdict.json("verdict.json")["passed"]),
        classes=2 if inputs.metrics["task"] == MULTI_LABEL else len(inputs.metrics["class_names"]),
        accuracy=float(inputs.metrics["test"]["accuracy"]["value"]),
        min_accuracy=settings.min_accuracy,
        dataset=inputs.dataset,
        predictions=_predictions(inputs.probe.path / "predictions.parquet"),
        champion=None if at is None or at == version else _champion(client, settings.name, at, inputs.dataset),
    )


def _champion(client: "MlflowClient", name: str, version: int, dataset: str) -> Champion:
    tested_on = client.get_model_version(name, str(version)).tags.get("dier.dataset")
    return Champion(version, tested_on, _stored_predictions(name, version) if tested_on == dataset else None)


def _stored_predictions(name: str, version: int) -> Predictions | None:
    """The test predictions kept with a version; None where they are gone or damaged."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return _predictions(Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}/{package.PREDICTIONS}")))
    except (MlflowException, OSError, ValueError, KeyError):
        return None


def _predictions(file: Path) -> Predictions:
    table = pq.read_table(file, columns=["index", "correct"])
    return Predictions(table["index"].to_numpy(), np.asarray(table["correct"].to_numpy(), np.float64))


def _tags(inputs: Inputs, gate: Gate) -> dict[str, str]:
    verdict = inputs.verdict.json("verdict.json")
    return {
        versions.DIGEST_TAG: inputs.digest,
        versions.GATE_TAG: versions.PASSED if gate.passed else versions.REFUSED,
        versions.REASONS_TAG: json.dumps(gate.reasons, ensure_ascii=False),
        "dier.model": inputs.model.fingerprint,
        "dier.probe": inputs.probe.fingerprint,
        "dier.dataset": inputs.dataset,
        "dier.dataset_name": inputs.metrics["dataset"],
        "dier.training_key": inputs.summary["training_key"],
        "dier.verdict": f"{'passed' if verdict['passed'] else 'failed'}, {verdict['warnings']} warnings",
        "dier.accuracy": f"{inputs.metrics['test']['accuracy']['value']:.4f}",
        "dier.t": str(inputs.metrics["t"]),
        **provenance(Path.cwd()),
    }


def _set_alias(client: "MlflowClient", settings: RegisterSettings, version: int, gate: Gate) -> None:
    name, there = settings.name, versions.aliases(client, settings.name)
    if not gate.passed:
        if there.get(versions.CANDIDATE) == version:  # it passed once, and would not now
            client.delete_registered_model_alias(name, versions.CANDIDATE)
    elif there.get(versions.CHAMPION) == version:
        return
    elif settings.policy == "auto":
        versions.move(client, name, versions.CHAMPION, version, why="register.policy auto: the gate passed", gate=versions.PASSED)
    else:
        client.set_registered_model_alias(name, versions.CANDIDATE, str(version))
