"""`dier models` and `dier history`: what is registered, and who moved which alias when and why."""

import json
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

from components.registry import promotions, versions
from components.registry.entry import UNREADABLE, Entry
from components.tracking.client import connect, every, one_line_errors, redact, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from rich.table import Table

COLUMNS = ("number", "when", "who", "alias", "from", "to", "kind", "verdict", "reason", "outcome")
"""What `dier history` says of a promotion, in that order."""


def models(name: str | None) -> str:
    """A table of the versions of `name` (of every registered model: None); with a name also its promotions."""
    client = connect(must_exist=True)
    with one_line_errors():
        chosen = [versions.registered(client, name)] if name else every(client.search_registered_models)
        chosen = [model for model in chosen if promotions.MARK not in model.tags]
        if not chosen:
            return f"no registered models at {redact(tracking_uri())}; dier register makes one"
        parts = [text(_versions_table(client, chosen))]
        if name:
            parts.append(_history_text(_history(client, chosen[0], None)))
        return "\n".join(parts)


def history(name: str, *, alias: str | None, as_json: bool) -> str:
    """The promotions of `name`, oldest first, of one alias or of all (None): a table, or a JSON list of objects with COLUMNS."""
    client = connect(must_exist=True)
    with one_line_errors():
        rows = _history(client, versions.registered(client, name), alias)
    return json.dumps(rows, indent=2, ensure_ascii=False) if as_json else _history_text(rows)


def _history(client: "MlflowClient", model: "RegisteredModel", alias: str | None) -> list[dict[str, Any]]:
    """The promotions, and a row by nobody wherever an alias was found elsewhere than where it had been moved to."""
    entries = promotions.record(client, model)
    digests = {entry.number: entry.digest for entry in entries}
    at = versions.aliases(client, model.name)  # read after the record
    rows, stood = list[dict[str, Any]](), dict[str, int | None]()
    for entry in entries:
        if entry.kind == UNREADABLE:
            rows.append(_unreadable(entry))
            continue
        if entry.alias in stood and stood[entry.alias] != entry.before:
            rows.append(_elsewhere(entry.alias, stood[entry.alias], entry.before))
        rows.append(_row(entry, digests))
        stood[entry.alias] = entry.to if entry.moved else entry.before
    pending = {entry.alias for entry in entries if entry.pending}
    rows += [_elsewhere(one, was, at.get(one)) for one, was in stood.items() if one not in pending and was != at.get(one)]
    return [row for row in rows if alias is None or row["alias"] in (alias, None)]  # what cannot be read may be of any alias


def _row(entry: Entry, digests: dict[int, str]) -> dict[str, Any]:
    outcome = "moved" if entry.moved else f"not moved: {entry.withdrawn}" if entry.withdrawn else "not moved yet"
    if entry.seal and digests.get(entry.follows) != entry.seal:
        outcome += f"; promotion {entry.follows}, which it follows, was changed or removed afterwards"
    said = (entry.number or None, entry.when, entry.who, entry.alias, entry.before, entry.to)
    verdict = entry.gate + (", forced" if entry.forced else "")
    return dict(zip(COLUMNS, (*said, entry.kind, verdict, entry.why, outcome), strict=True))


def _unreadable(entry: Entry) -> dict[str, Any]:
    said = (entry.number or None, *[None] * 5, entry.kind, None, None, "damaged, or of a later dier: it moves nothing")
    return dict(zip(COLUMNS, said, strict=True))


def _elsewhere(alias: str, was: int | None, found: int | None) -> dict[str, Any]:
    said = (None, None, None, alias, was, found, "by other means", None, None, "found so")
    return dict(zip(COLUMNS, said, strict=True))


def _history_text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no promotions yet"
    plain = all(row["outcome"] == "moved" for row in rows)
    columns = [column for column in COLUMNS if not (plain and column == "outcome")]
    return text(table(columns, [[_or_dash(row[column]) for column in columns] for row in rows]))


def _versions_table(client: "MlflowClient", chosen: list["RegisteredModel"]) -> "Table":
    return versions_table([(model, version) for model in chosen for version in versions.versions(client, model.name)])


def versions_table(chosen: list[tuple["RegisteredModel", "ModelVersion"]]) -> "Table":
    """A row a version, of whatever models."""
    rows = []
    for model, version in chosen:
        tags, made = version.tags, registered_at(version)
        accuracy = tags.get(versions.ACCURACY_TAG) or (f"kept {tags[versions.KEPT_TAG]}" if versions.KEPT_TAG in tags else "-")
        figures = [accuracy, *(tags.get(f"dier.{key}", "-") for key in ("t", "dataset_name", "gate"))]
        rows.append([model.name, str(version.version), ", ".join(held(model, version)), *figures, made])
    return table(["model", "version", "aliases", "accuracy", "t", "dataset", "gate", "registered"], rows)


def held(model: "RegisteredModel", version: "ModelVersion") -> list[str]:
    """The aliases of a version."""
    return sorted(alias for alias, at in model.aliases.items() if int(at) == int(version.version))


def registered_at(version: "ModelVersion") -> str:
    """When, by the registry's clock."""
    return f"{datetime.fromtimestamp(version.creation_timestamp / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def table(header: list[str], rows: list[list[str]]) -> "Table":
    """Rows of text under a header."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def text(table: "Table") -> str:
    """A table as plain lines, 160 characters wide at most."""
    from rich.console import Console

    console = Console(file=StringIO(), width=160)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
