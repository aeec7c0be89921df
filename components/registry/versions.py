"""The model registry: versions and their tags, where they come from, and what each alias points at."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.common.errors import SettingsError
from components.tracking.client import every, redact, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

STORES = ("s3", "gs", "hdfs", "webhdfs")
"""Schemes of places that MLflow writes to and that others, such as KServe, read by themselves."""
CHAMPION = "champion"
CANDIDATE = "candidate"
DIGEST_TAG = "dier.digest"
DATASET_TAG = "dier.dataset"
ACCURACY_TAG = "dier.accuracy"
KEPT_TAG = "dier.neighbours_kept"
"""In place of an accuracy where the labels tell nothing apart."""
GATE_TAG = "dier.gate"
REASONS_TAG = "dier.gate_reasons"
PASSED, UNCOMPARED, REFUSED = VERDICTS = ("passed", "uncompared", "refused")
"""The gate's verdicts, from best to worst."""
BESIDE_TAG = "dier.gate_beside"
"""Which champion the gate compared with, null where there was none, and the margin: {"champion": 3, "margin": 0.03} as JSON."""
REPORT_TAG = "dier.report"
SETTINGS_TAG = "dier.register"
"""The settings that a version was judged by, as JSON. Written last: a version that has it has its alias too."""
VERDICT_TAG = "dier.verdict_artifact"
"""Fingerprint of the verdict on the data; what it said stands in dier.verdict, in words."""
FILES_TAG = "dier.files"
"""sha256 of the manifest in the version's folder, which lists every file of it."""
COPIES_TAG = "dier.copies"
"""Of each original among the test images, where there are several."""
NAMED = re.compile(r"(?:models:/(?=.*[@/]))?(?P<name>[^@/:]+)(?:@(?P<alias>[^@/:]+)|/(?P<number>\d+))?")
"""How a person names a version. Of MLflow's URIs those of a registered model, and not `models:/m-...`, a logged one."""


def registered(client: "MlflowClient", name: str) -> "RegisteredModel":
    """The registered model. Raises SettingsError naming those that exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        there = ", ".join(model.name for model in every(client.search_registered_models)) or "none"
        where = redact(tracking_uri())
        raise SettingsError(f"no registered model {name!r} at {where} (there are: {there}); check the name") from error


def versions(client: "MlflowClient", name: str, tags: Iterable[tuple[str, str]] = ()) -> list["ModelVersion"]:
    """Every version of `name` that carries these tags, oldest first."""
    wanted = " and ".join([f"name='{name}'", *(f"tags.`{key}`='{value}'" for key, value in tags)])
    return sorted(every(client.search_model_versions, wanted), key=lambda version: int(version.version))


def find(client: "MlflowClient", asked: str) -> "ModelVersion":
    """The version that `asked` names: NAME@ALIAS, NAME/VERSION, or NAME, its champion. Raises SettingsError where there is none."""
    parts = NAMED.fullmatch(asked)
    if not parts:
        raise SettingsError(f"{asked!r} names no version: give NAME (its champion), NAME@ALIAS or NAME/VERSION, such as dier/3")
    name = parts["name"]
    if parts["number"]:
        registered(client, name)  # says which there are
        wanted = int(parts["number"])
    else:
        wanted = at_alias(client, name, parts["alias"] or CHAMPION)
    known = {int(version.version): version for version in versions(client, name)}
    if wanted not in known:
        raise SettingsError(f"{name} has no version {wanted} (there are: {', '.join(map(str, known)) or 'none'})")
    return known[wanted]


def location(client: "MlflowClient", name: str, version: int) -> str:
    """Where the files of a version lie: a URI, or a path on the machine that registered it."""
    return str(client.get_model_version_download_uri(name, str(version)))


def shared_location(client: "MlflowClient", name: str, version: int) -> str:
    """The same for others: MLflow's own name for the version where its files lie in no object store."""
    uri = location(client, name, version)
    return redact(uri) if urlsplit(uri).scheme in STORES else f"models:/{name}/{version}"


def aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    """Which version each alias points at."""
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def at_alias(client: "MlflowClient", name: str, alias: str) -> int:
    """The version that carries `alias`. Raises SettingsError where there is no such model or alias."""
    held = registered(client, name).aliases
    if alias not in held:
        there = ", ".join(f"{key} (version {value})" for key, value in sorted(held.items())) or "none"
        raise SettingsError(f"{name} has no alias {alias} (there are: {there}): dier promote {name} sets champion, or name another")
    return int(held[alias])
