"""`dier lineage`: from a version back to what it was made from, from a dataset forward to every version trained on it."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components.common import artifact
from components.common.errors import ArtifactError, SettingsError
from components.common.lineage import MADE_FROM
from components.common.settings import Settings
from components.registry import provenance, versions
from components.registry.listing import held, registered_at, text, versions_table
from components.registry.provenance import TRAINED, UNKNOWN
from components.tracking.client import KEY_TAG, connect, every, one_line_errors, redact, tracking_uri
from components.tracking.environment import COMMIT_TAG, DIRTY_TAG, ENVIRONMENT_TAG, read_json
from components.tracking.metrics import params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

T = TypeVar("T")

SHORTEST = 8
"""Hexadecimal digits of a fingerprint that are enough to ask for it."""
TAGS = {kind: f"dier.{kind}" for kind in MADE_FROM} | {"verdict": versions.VERDICT_TAG}
"""By kind of artifact the tag with its fingerprint."""


def lineage(asked: str, *, artifacts: Path, as_json: bool) -> str:
    """Where the version NAME@ALIAS or NAME/VERSION comes from, as lines or as JSON.

    `artifacts` is looked at for those behind it. Raises SettingsError for what is not registered.
    """
    client = connect(must_exist=True)
    with one_line_errors():
        version = versions.find(client, asked)
        found = _behind(client, client.get_registered_model(version.name), version, artifacts)
    return json.dumps(found, indent=2, ensure_ascii=False) if as_json else _as_text(found)


def trained_on(asked: str, *, as_json: bool) -> str:
    """Every version of every model trained on a dataset: its folder, or at least SHORTEST digits of its fingerprint.

    Raises SettingsError where that is neither, or begins the fingerprints of several datasets.
    """
    wanted = _fingerprint(asked)
    client = connect(must_exist=True)
    with one_line_errors():
        query = f"tags.`{versions.DATASET_TAG}` LIKE '{wanted}%'"
        found = sorted(every(client.search_model_versions, query), key=lambda one: (one.name, int(one.version)))
        models = {name: client.get_registered_model(name) for name in {one.name for one in found}}
    datasets = sorted({one.tags[versions.DATASET_TAG] for one in found})
    if len(datasets) > 1:
        raise SettingsError(
            f"{len(datasets)} datasets begin with {wanted} ({', '.join(one[:16] for one in datasets)}): give more digits"
        )
    if as_json:
        return json.dumps([_row(models[one.name], one) for one in found], indent=2, ensure_ascii=False)
    if not found:
        return f"no version at {redact(tracking_uri())} was trained on the dataset {wanted}"
    return f"trained on the dataset {datasets[0]}\n{text(versions_table([(models[one.name], one) for one in found]))}"


def _fingerprint(asked: str) -> str:
    if Path(asked).is_dir():
        return artifact.read(Path(asked), "dataset", check=False).fingerprint
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", asked):
        raise SettingsError(f"{asked!r} is no dataset: give its folder, or {SHORTEST} to 64 digits (0-9, a-f) of its fingerprint")
    return asked


def _row(model: "RegisteredModel", version: "ModelVersion") -> dict[str, Any]:
    tags = version.tags
    figure = {key: tags.get(tag) for key, tag in (("accuracy", versions.ACCURACY_TAG), ("neighbours_kept", versions.KEPT_TAG))}
    return {
        "model": version.name,
        "version": int(version.version),
        "aliases": held(model, version),
        "gate": tags.get(versions.GATE_TAG),
        "registered": registered_at(version),
        **{key: float(value) for key, value in figure.items() if value},
        "dataset": tags.get(versions.DATASET_TAG),
        "training_key": tags.get(KEY_TAG),
    }


def _behind(client: "MlflowClient", model: "RegisteredModel", version: "ModelVersion", artifacts: Path) -> dict[str, Any]:
    tags, dvc = version.tags, read_json(version.tags.get(provenance.DVC_TAG))
    run = _known(client.get_run, version.run_id)
    of_run = run.data.tags if run else {}
    trained, registered = read_json(of_run.get(ENVIRONMENT_TAG)), read_json(tags.get(ENVIRONMENT_TAG))
    logged = _known(client.get_logged_model, str(version.source).removeprefix("models:/"))
    settings = logged.params if logged else {}
    return _row(model, version) | {
        "git_commit": tags.get(COMMIT_TAG, UNKNOWN),
        "git_dirty": tags.get(DIRTY_TAG, UNKNOWN),
        "trained_git_commit": tags.get(TRAINED[COMMIT_TAG], of_run.get(COMMIT_TAG, UNKNOWN)),
        "trained_git_dirty": tags.get(TRAINED[DIRTY_TAG], of_run.get(DIRTY_TAG, UNKNOWN)),
        "run": version.run_id,
        "image": trained.get("image", registered.get("image", UNKNOWN)),
        "trained_with": trained,
        "registered_with": registered,
        "dataset_name": tags.get("dier.dataset_name", UNKNOWN),
        "licence": tags.get(provenance.LICENCE_TAG, UNKNOWN),
        "use": tags.get(provenance.USE_TAG),
        "verdict": tags.get("dier.verdict", UNKNOWN),
        "artifacts": {
            kind: {"fingerprint": tags.get(tag), "dvc": dvc.get(kind), "at": _at_hand(artifacts / kind, kind, tags.get(tag))}
            for kind, tag in TAGS.items()
        },
        "settings": settings,
    }


def _known(get: Callable[[str], T], key: str | None) -> T | None:
    """What MLflow has under `key`; None where it was removed for good, or never was."""
    from mlflow.exceptions import MlflowException

    try:
        return get(key) if key else None
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        return None


def _at_hand(folder: Path, kind: str, fingerprint: str | None) -> str | None:
    """Where the artifact lies, if it is this very one."""
    try:
        return str(folder) if artifact.read(folder, kind, check=False).fingerprint == fingerprint else None
    except ArtifactError:
        return None


def _as_text(found: Mapping[str, Any]) -> str:
    aliases = f" ({', '.join(found['aliases'])})" if found["aliases"] else ""
    use = f": {found['use']} use only" if found["use"] else ""
    lines = [
        f"{found['model']} version {found['version']}{aliases}, registered {found['registered']}, gate {found['gate']}",
        f"git commit       {_commits(found)}",
        f"container image  {found['image']}",
        f"training         key {found['training_key']}, MLflow run {found['run']}",
        f"trained with     {_environment(found['trained_with'])}",
        f"registered with  {_environment(found['registered_with'])}",
        f"settings         {_changed(found['settings'])}",
        f"data             {found['dataset_name']}, licence {found['licence']}{use}; verdict {found['verdict']}",
        "",
        "artifact    fingerprint" + " " * 55 + "DVC",
    ]
    for kind, one in found["artifacts"].items():
        here = f"   at hand: {one['at']}" if one["at"] else ""
        lines.append(f"{kind:<11} {one['fingerprint'] or UNKNOWN:<65} {one['dvc'] or UNKNOWN}{here}".rstrip())
    return "\n".join(lines)


def _commits(found: Mapping[str, str]) -> str:
    """That of the training and that of the registration, or the one where they are the same."""
    shown = []
    for of in ("trained_", ""):
        commit = found[f"{of}git_commit"]
        changed = {"true": ", with changes", "false": ""}.get(found[f"{of}git_dirty"], ", whether changed is unknown")
        shown.append(f"{commit}{changed}" if commit != UNKNOWN else UNKNOWN)
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} (trained); {shown[1]} (registered)"


def _environment(told: Mapping[str, str]) -> str:
    told = {key: value for key, value in told.items() if key != "image"}
    return ", ".join(f"{key} {value}" for key, value in told.items()) or UNKNOWN


def _changed(settings: Mapping[str, str]) -> str:
    """Those that are not this dier's defaults."""
    default = params(Settings().model_dump(mode="json", by_alias=True))
    changed = [f"{key} {value}" for key, value in settings.items() if key in default and default[key] != value]
    if not settings:
        return UNKNOWN
    return f"{len(settings)} (--json lists them); not the defaults: {', '.join(changed) or 'none'}"
