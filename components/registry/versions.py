"""The model registry: versions by digest, aliases, and the record of who moved which alias when and why."""

import contextlib
import getpass
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.common.errors import SettingsError
from components.tracking.client import redact, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION = "champion"
CANDIDATE = "candidate"
DIGEST_TAG = "dier.digest"
GATE_TAG = "dier.gate"
REASONS_TAG = "dier.gate_reasons"
PASSED, REFUSED = "passed", "refused"
RECORD = "dier.promotion."
"""Each promotion is a tag of the registered model, named after its time: two at once cannot overwrite each other."""


def registered(client: "MlflowClient", name: str) -> "RegisteredModel":
    """The registered model. Raises SettingsError naming those that exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        there = ", ".join(model.name for model in client.search_registered_models()) or "none"
        where = redact(tracking_uri())
        raise SettingsError(f"no registered model {name!r} at {where} (there are: {there}); check the name") from error


def versions(client: "MlflowClient", name: str, tags: Iterable[tuple[str, str]] = ()) -> list["ModelVersion"]:
    """Every version of `name` that carries these tags, oldest first."""
    wanted = " and ".join([f"name='{name}'", *(f"tags.`{key}`='{value}'" for key, value in tags)])
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(wanted, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    """Which version each alias points at."""
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def move(client: "MlflowClient", name: str, alias: str, version: int, *, why: str, gate: str, forced: bool = False) -> int | None:
    """Point `alias` at `version` and record it; give the version that it pointed at before (None: nothing).

    The record comes first: an alias never moves without one, and a move that failed takes its record back.
    """
    before, now = aliases(client, name).get(alias), datetime.now(UTC)
    entry = {
        "who": _who(),
        "when": now.isoformat(timespec="seconds"),
        "alias": alias,
        "from": before,
        "to": version,
        "why": why,
        "gate": gate,
        "forced": forced,
    }
    key = f"{RECORD}{now:%Y%m%dT%H%M%S.%f}-v{version}"
    client.set_registered_model_tag(name, key, json.dumps(entry, ensure_ascii=False))
    try:
        client.set_registered_model_alias(name, alias, str(version))
    except Exception:
        with contextlib.suppress(Exception):  # the first error is the one to show
            client.delete_registered_model_tag(name, key)
        raise
    return before


def record(model: "RegisteredModel") -> list[dict[str, Any]]:
    """Every promotion of a registered model, oldest first."""
    return [json.loads(value) for key, value in sorted(model.tags.items()) if key.startswith(RECORD)]


def _who() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"
