"""`dier promote` and `dier models`: move an alias with a record of it, and show what is registered."""

import json
import re
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

from components.common.errors import GateRefused, SettingsError
from components.registry import versions
from components.tracking.client import connect, every, one_line_errors, redact, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from rich.table import Table

MAX_REASON = 2000
"""Characters: a reason is a sentence or two, and has to fit a tag."""


def promote(name: str, *, version: int | None, alias: str, force: bool, reason: str | None) -> str:
    """Point `alias` at `version` (default: the candidate), record it, and say what happened.

    Raises SettingsError for what does not exist or `force` without a reason, GateRefused for what the gate refused unless forced.
    """
    why = " ".join((reason or "").split())
    if force and not why:
        raise SettingsError("--force needs --reason TEXT: the record keeps why the gate was overruled")
    if len(why) > MAX_REASON:
        raise SettingsError(f"--reason is {len(why)} characters long, {MAX_REASON} fit the record: shorten it")
    if not re.fullmatch(r"(?!latest$|[vV]\d+$)[A-Za-z][A-Za-z0-9_-]{0,99}", alias):  # MLflow's own rule, and a sane length
        raise SettingsError(f"--to {alias!r} cannot be an alias: use letters, digits, - and _, but neither latest nor v1, v2, ...")
    client = connect(must_exist=True)
    with one_line_errors():
        model = versions.registered(client, name)
        chosen = _choose(client, model, version)
        gate = chosen.tags.get(versions.GATE_TAG, "unknown")
        number = int(chosen.version)
        if versions.aliases(client, name).get(alias) == number:
            return f"{name} version {number} is {alias} already; nothing to do"
        if gate not in (versions.PASSED, versions.UNCOMPARED) and not force:
            raise GateRefused(_refusal(name, number, chosen))
        before = versions.move(client, name, alias, number, why=why or f"the gate: {gate}", gate=gate, forced=force)
    moved = f"from version {before} to version {number}" if before else f"to version {number}"
    return f"{name}: {alias} moved {moved} (gate {gate}{', forced' if force else ''}); recorded"


def _choose(client: "MlflowClient", model: "RegisteredModel", version: int | None) -> "ModelVersion":
    known = {int(v.version): v for v in versions.versions(client, model.name)}
    there = ", ".join(map(str, known)) or "none"
    if version is None:
        candidate = model.aliases.get(versions.CANDIDATE)
        if candidate is None:
            raise SettingsError(f"{model.name} has no alias candidate: give --version (there are versions {there})")
        version = int(candidate)
    if version not in known:
        raise SettingsError(f"{model.name} has no version {version} (there are: {there}); choose one with --version")
    return known[version]


def _refusal(name: str, number: int, chosen: "ModelVersion") -> str:
    reasons = chosen.tags.get(versions.REASONS_TAG)
    if reasons is None:
        what = f"{name} version {number} never went through the gate (it was not registered by dier)"
    else:
        what = f"the gate refused {name} version {number}: {'; '.join(json.loads(reasons))}"
    return f"{what}; to promote it all the same add --force --reason TEXT"


def models(name: str | None) -> str:
    """A table of the versions of `name` (of every registered model: None); with a name also its promotion record."""
    client = connect(must_exist=True)
    with one_line_errors():
        chosen = [versions.registered(client, name)] if name else every(client.search_registered_models)
        if not chosen:
            return f"no registered models at {redact(tracking_uri())}; dier register makes one"
        parts = [_text(_versions_table(client, chosen))]
        if name:
            record = versions.record(chosen[0])
            parts.append(_text(_record_table(record)) if record else "no promotions yet")
        return "\n".join(parts)


def _versions_table(client: "MlflowClient", chosen: list["RegisteredModel"]) -> "Table":
    rows = []
    for model in chosen:
        for version in versions.versions(client, model.name):
            held = sorted(alias for alias, at in model.aliases.items() if int(at) == int(version.version))
            tags, made = version.tags, datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
            accuracy = tags.get(versions.ACCURACY_TAG) or (f"kept {tags[versions.KEPT_TAG]}" if versions.KEPT_TAG in tags else "-")
            figures = [accuracy, *(tags.get(f"dier.{key}", "-") for key in ("t", "dataset_name", "gate"))]
            rows.append([model.name, str(version.version), ", ".join(held), *figures, f"{made:%Y-%m-%d %H:%M} UTC"])
    return _table(["model", "version", "aliases", "accuracy", "t", "dataset", "gate", "registered"], rows)


def _record_table(record: list[dict[str, Any]]) -> "Table":
    rows = [
        [
            e["when"],
            e["who"],
            e["alias"],
            _or_dash(e["from"]),
            str(e["to"]),
            e["gate"] + (", forced" if e["forced"] else ""),
            e["why"],
        ]
        for e in record
    ]
    return _table(["when", "who", "alias", "from", "to", "gate", "why"], rows)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _table(header: list[str], rows: list[list[str]]) -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _text(table: "Table") -> str:
    from rich.console import Console

    console = Console(file=StringIO(), width=160)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
