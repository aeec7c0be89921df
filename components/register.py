"""The register step: judge the model, log it into its MLflow run, make it a version, give it an alias; then Kubeflow's registry."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.common import artifact
from components.common.gates import check_registration
from components.common.progress import say
from components.common.settings import RegisterSettings
from components.registry import card, kubeflow_registry, package, promotions, provenance, versions
from components.registry.champions import champions, predictions
from components.registry.documents import Documents
from components.registry.entry import AUTO, Entry
from components.registry.gate import Evidence, Gate, decide
from components.registry.inputs import Inputs
from components.tracking.client import Run, connect, one_line_errors, redact, training_run
from components.tracking.complete_run import complete_run
from components.tracking.metrics import params
from model.atomic import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

NOT_JUDGED_BY = ("model_registry", "sample")
"""Settings of register that the gate does not look at: with others a version stands as it is."""
OF_THE_RUN = ("config", "data", "validate", "model", "train")
"""Sections that a training's run tells. Those of later steps differ from version to version and stand with the version alone."""


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
            if register_settings.model_registry:
                kubeflow_registry.register(register_settings.model_registry, _entry(client, registration, inputs))
        artifact.write_json(folder / "registration.json", registration)
    check_registration(out)


def _register(client: "MlflowClient", settings: RegisterSettings, inputs: Inputs) -> dict[str, Any]:
    name = settings.name
    run = training_run(client, inputs.summary["training_key"], settings.experiment)
    _ensure_registered(client, name)
    found = next(iter(versions.versions(client, name, [(versions.DIGEST_TAG, inputs.digest)])), None)
    new_report = found is None or found.tags.get(versions.REPORT_TAG) != inputs.report.fingerprint
    if found is None or found.run_id != run.id or new_report:
        complete_run(client, run, inputs.model, inputs.probe, inputs.report, inputs.settings_of(OF_THE_RUN))
    if found is not None and new_report:
        for key, value in provenance.report_tags(found.tags, inputs.report).items():
            client.set_model_version_tag(name, found.version, key, value)
    judged_by = canonical_json({key: value for key, value in settings.record().items() if key not in NOT_JUDGED_BY})
    if found is not None and _stands(found, judged_by):
        version = int(found.version)
        gate = Gate(found.tags[versions.GATE_TAG], json.loads(found.tags[versions.REASONS_TAG]))
    else:
        last = promotions.last(promotions.settle(client, client.get_registered_model(name), versions.CHAMPION), versions.CHAMPION)
        seen = client.get_registered_model(name)
        present = int(seen.aliases[versions.CHAMPION]) if versions.CHAMPION in seen.aliases else None
        gate = decide(_evidence(client, settings, inputs, int(found.version) if found else None, present))
        tags = _tags(inputs, gate) | {versions.BESIDE_TAG: json.dumps({"champion": present, "margin": settings.margin})}
        version = _store_version(client, settings, run, inputs, tags, found)
        if _set_alias(client, settings, version, gate, last, seen):
            client.set_model_version_tag(name, str(version), versions.SETTINGS_TAG, judged_by)
    return {
        "name": name,
        "version": version,
        "digest": inputs.digest,
        "run_id": run.id,
        "gate": {"passed": gate.passed, "verdict": gate.verdict, "reasons": gate.reasons},
        "aliases": sorted(alias for alias, at in versions.aliases(client, name).items() if at == version),
    }


def _entry(client: "MlflowClient", registration: dict[str, Any], inputs: Inputs) -> kubeflow_registry.Entry:
    """The version as Kubeflow's Model Registry gets it."""
    from importlib.metadata import version as installed

    name, version, gate = registration["name"], registration["version"], registration["gate"]
    return kubeflow_registry.Entry(
        name=name,
        version=version,
        digest=inputs.digest,
        uri=versions.shared_location(client, name, version),
        passed=gate["passed"],
        format_version=installed("mlflow"),
        properties={
            "mlflow_model": f"models:/{name}/{version}",
            "mlflow_run_id": registration["run_id"],
            "digest": inputs.digest,
            "dataset": inputs.metrics["dataset"],
            "dataset_digest": inputs.dataset,
            "gate": gate["verdict"],
            **({"test_accuracy": inputs.figure} if inputs.labelled else {"neighbours_kept": inputs.figure}),
            "t": int(inputs.metrics["t"]),
        },
    )


def _stands(found: "ModelVersion", judged_by: str) -> bool:
    """Whether the version is registered as asked: registering it again must not judge it, or move an alias, anew.

    One that was refused is judged again: it may pass beside another champion.
    """
    return found.tags.get(versions.SETTINGS_TAG) == judged_by and found.tags[versions.GATE_TAG] != versions.REFUSED


def _store_version(
    client: "MlflowClient", settings: RegisterSettings, run: Run, inputs: Inputs, tags: dict[str, str], found: "ModelVersion | None"
) -> int:
    """Make the version, or bring the tags of the one that is there up to date; give its number."""
    name = settings.name
    if found is None:
        tags |= provenance.tags(inputs.report.path, client.get_run(run.id).data.tags)
        documents = Documents.of(client, settings, run, inputs)
        settings_of_all = params(inputs.settings)
        model_id = package.log_model(client, run, name, inputs.model, inputs.probe, settings_of_all, add=documents.write)
        tags[versions.FILES_TAG] = package.seal_model(client, model_id, inputs.model, inputs.probe, inputs.report)
        about = card.description(documents.facts)
        client.create_model_version(name, f"models:/{model_id}", run.id, tags=tags, model_id=model_id, description=about)
        return _first_version(client, name, inputs.digest, model_id)
    for key, value in tags.items():
        client.set_model_version_tag(name, found.version, key, value)
    return int(found.version)


def _first_version(client: "MlflowClient", name: str, digest: str, model_id: str) -> int:
    """The version that counts of those with this digest, the first; others that were made for `model_id` are removed.

    There are several where MLflow's client repeated a request whose answer was lost, as when the server was killed and is back, or
    where the same model was registered twice at once.
    """
    from mlflow.exceptions import MlflowException

    first, *others = versions.versions(client, name, [(versions.DIGEST_TAG, digest)])
    for other in others:
        if other.source == f"models:/{model_id}":
            try:
                client.delete_model_version(name, other.version)
            except MlflowException as error:
                say(f"register: {name} version {other.version} is version {first.version} again, and stays: {redact(str(error))}")
    return int(first.version)


def _ensure_registered(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _evidence(
    client: "MlflowClient", settings: RegisterSettings, inputs: Inputs, version: int | None, present: int | None
) -> Evidence:
    kept = package.got_right(inputs.metrics)
    return Evidence(
        settings=settings,
        verdict=inputs.findings,
        summary=inputs.summary,
        metrics=inputs.metrics,
        dataset=inputs.dataset,
        predictions=predictions(inputs.probe.path / kept),
        champions=champions(client, settings.name, inputs.dataset, version, present, kept),
    )


def _tags(inputs: Inputs, gate: Gate) -> dict[str, str]:
    verdict = inputs.findings
    return {
        versions.DIGEST_TAG: inputs.digest,
        versions.GATE_TAG: gate.verdict,
        versions.REASONS_TAG: json.dumps(gate.reasons, ensure_ascii=False),
        versions.DATASET_TAG: inputs.dataset,
        "dier.model": inputs.model.fingerprint,
        "dier.embeddings": inputs.probe.made_from["embeddings"],
        "dier.probe": inputs.probe.fingerprint,
        versions.VERDICT_TAG: inputs.verdict.fingerprint,
        versions.REPORT_TAG: inputs.report.fingerprint,
        "dier.dataset_name": inputs.metrics["dataset"],
        "dier.training_key": inputs.summary["training_key"],
        "dier.verdict": f"{'passed' if verdict['passed'] else 'failed'}, {verdict['warnings']} warnings",
        versions.ACCURACY_TAG if inputs.labelled else versions.KEPT_TAG: f"{inputs.figure:.4f}",
        "dier.t": str(inputs.metrics["t"]),
        **({versions.COPIES_TAG: str(inputs.metrics["copies"])} if "copies" in inputs.metrics else {}),
        **provenance.licence_tags(inputs.licence),
    }


def _set_alias(
    client: "MlflowClient",
    settings: RegisterSettings,
    version: int,
    gate: Gate,
    last: Entry | None,
    seen: "RegisteredModel",
) -> bool:
    """Give the version the alias that it is due; `last` is the promotion of champion that the gate judged beside, `seen` the model.

    False where another version became champion meanwhile, which the gate has not seen: this one is candidate instead, and is judged
    again when it is registered again.
    """
    name, there = settings.name, versions.aliases(client, settings.name)
    if not gate.passed:
        if there.get(versions.CANDIDATE) == version:  # it passed once, and would not now
            client.delete_registered_model_alias(name, versions.CANDIDATE)
        return True
    if there.get(versions.CHAMPION) == version:
        return True
    if settings.policy == "auto" and gate.verdict == versions.PASSED:
        why, kind = "register.policy auto: the gate passed", AUTO
        try:
            promotions.move(client, seen, versions.CHAMPION, version, follows=last, why=why, gate=gate.verdict, kind=kind)
        except promotions.Overtaken as error:
            promotions.set_alias(client, name, versions.CANDIDATE, version)
            say(f"register: {error}. It is candidate instead; register it again to have it judged beside that champion")
            return False
        return True
    promotions.set_alias(client, name, versions.CANDIDATE, version)
    return True
