"""Who moved which alias when and why: a record that the store itself puts in order, and aliases that follow it.

MLflow sets an alias, or a tag, whatever it was before: of several promotions at once each would believe that it had won. One thing
its store does one at a time: a new version gets the highest number of its registered model plus one, under a primary key
(mlflow/store/model_registry/sqlalchemy_store.py, `create_model_version`), so whoever sees number n sees every number before it. The
promotions of NAME are therefore versions of another registered model, NAME.promotions, made as MLflow copies versions (source
`models:/NAME/VERSION`). Each says which promotion it *follows*; of those that follow the same one the first counts. No clock takes
part and nobody waits: what a process that died left written is finished by whoever comes next (`settle`).
"""

import getpass
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from components.common.errors import SettingsError
from components.registry import versions
from components.registry.entry import BEFORE, ENTRY, MOVED, PROMOTE, UNREADABLE, WITHDRAWN, Entry, entry_of_tag, read_entry, text_of
from components.tracking.client import TrackingError, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

SUFFIX = ".promotions"
MARK = "dier.record_of_promotions"
"""Tag of the registered model that holds a record: it is no model, and `dier models` leaves it out."""
KEPT = "dier.promotions"
"""Tag of a model that has a record: who may not read that one is refused, and does not take it for empty."""
ATTEMPTS = 10
LAG_S = 10.0
"""Seconds to wait for one's own entry to be there, where reads come from a replica of the database."""


class Overtaken(Exception):
    """This promotion moved nothing: another came first, or the alias was moved by other means meanwhile (exit code 1)."""

    def __init__(self, message: str, first: "Entry | None" = None) -> None:
        super().__init__(message)
        self.first = first


def record(client: "MlflowClient", model: "RegisteredModel") -> list[Entry]:
    """The promotions of every alias of a model, in order, without those that were overtaken.

    Raises TrackingError where there is a record that may not be read.
    """
    made = [entry_of_tag(value) for key, value in sorted(model.tags.items()) if key.startswith(BEFORE)]
    followed = set[tuple[str, int]]()
    found = versions.versions(client, model.name + SUFFIX)
    if not found:
        _check_readable(client, model)
    for version in found:
        entry = read_entry(version, model)
        if entry is None or (entry.alias, entry.follows) in followed:
            continue
        if entry.kind != UNREADABLE:
            followed.add((entry.alias, entry.follows))
        made.append(entry)
    return made


def _check_readable(client: "MlflowClient", model: "RegisteredModel") -> None:
    """MLflow's search is silent of a record that may not be read, as of none; asked for it, MLflow refuses.

    Where nobody may read what was not granted it refuses what does not exist as well: then the model's tag tells.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model.name + SUFFIX)
    except MlflowException as error:
        if error.error_code == "PERMISSION_DENIED" and KEPT in model.tags:
            raise TrackingError(
                f"MLflow refuses (403) to show {model.name + SUFFIX}, the record of promotions of {model.name}: "
                "ask whoever manages the server for READ on it (EDIT to promote)"
            ) from error
        if error.error_code not in ("PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"):
            raise


def last(entries: Sequence[Entry], alias: str) -> Entry | None:
    """The last promotion of `alias`."""
    return next((entry for entry in reversed(entries) if entry.alias == alias), None)


def ever_champion(client: "MlflowClient", name: str) -> set[int]:
    """Every version that the record names as a champion, now or once."""
    entries = record(client, client.get_registered_model(name))
    return {entry.to for entry in entries if entry.alias == versions.CHAMPION and entry.withdrawn is None}


def move(
    client: "MlflowClient",
    model: "RegisteredModel",
    alias: str,
    version: int,
    *,
    follows: Entry | None,
    why: str,
    gate: str,
    forced: bool = False,
    kind: str = PROMOTE,
) -> Entry:
    """Point `alias` at `version`, provided that `follows` is still its last promotion; give the new one.

    `follows` is of the record that `settle` gave, `model` as it was read after that, before anything was decided on: an alias that
    was moved since is left where it is. Raises Overtaken where that is so, or another came first; then this one moves nothing, and
    in the second case is in no record. Who may not move the alias is told so, and nobody does it for them later.
    """
    from mlflow.exceptions import MlflowException

    at = model.aliases.get(alias)
    wanted = Entry(
        alias=alias,
        before=None if at is None else int(at),
        to=version,
        who=_who(),
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
        why=why,
        gate=gate,
        forced=forced,
        kind=kind,
        follows=follows.number if follows else 0,
        seal=follows.digest if follows else "",
        token=uuid4().hex,
    )
    _append(client, model, wanted)
    try:
        first = _first(client, model, wanted)
    except MlflowException as error:
        if error.error_code == "PERMISSION_DENIED":
            for mine in (one for one in record(client, model) if one.token == wanted.token and one.pending):
                _mark(client, model.name, mine, WITHDRAWN, f"{mine.who} may not move it")
        raise
    if first.token != wanted.token:
        raise overtaken(model.name, first, version)
    if first.withdrawn is not None:
        raise Overtaken(f"{model.name}: {alias} was not moved to version {version}: {first.withdrawn}")
    return first


def overtaken(name: str, first: Entry, version: int) -> Overtaken:
    """What is said to whom came second, and wanted `version`."""
    by = f"by {first.who} at the same time (promotion {first.number}"
    if first.withdrawn is None:
        what = f"{first.alias} was moved to version {first.to} {by})"
    else:
        what = f"{first.alias} was to be moved to version {first.to} {by}), and was not: {first.withdrawn}"
    return Overtaken(
        f"{name}: {what}, so version {version} was not promoted; "
        f"look at dier history {name}, and promote again if that is still wanted",
        first,
    )


def settle(client: "MlflowClient", model: "RegisteredModel", alias: str) -> list[Entry]:
    """Make `alias` follow the last promotion of it, whoever wrote that; give the record as it is then.

    Whoever writes the alias looks at the record again afterwards, and writes once more if it has grown: so the last to write it
    wrote what the record said then, however long a process stood still in between. What was withdrawn meanwhile is not written.
    """
    name, written = model.name, None
    while True:
        entries = record(client, model)
        entry = last([one for one in entries if written is None or one.withdrawn is None], alias)
        if entry is None:
            return entries
        nothing_is_pending = written is None and not entry.pending
        record_has_not_grown = entry.number == written
        if nothing_is_pending or record_has_not_grown:
            return entries
        at = versions.aliases(client, name).get(alias)
        if written is None and at not in (entry.before, entry.to):
            _mark(client, name, entry, WITHDRAWN, f"it was moved to {at or 'nothing'} by other means than dier meanwhile")
        elif _point(client, name, entry):
            written = entry.number


def set_alias(client: "MlflowClient", name: str, alias: str, version: int) -> None:
    """Point `alias` at `version`, unrecorded."""
    _again(client.set_registered_model_alias, name, alias, str(version))


def _point(client: "MlflowClient", name: str, entry: Entry) -> bool:
    """Move the alias and mark the entry; False where its version is gone: then the entry is withdrawn.

    With any other error it stays pending: it may be somebody else's, and be possible for them, or later.
    """
    from mlflow.exceptions import MlflowException

    try:
        set_alias(client, name, entry.alias, entry.to)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        _mark(client, name, entry, WITHDRAWN, redact(" ".join(str(error).split()))[:500])
        return False
    _mark(client, name, entry, MOVED, "true")
    return True


def _mark(client: "MlflowClient", name: str, entry: Entry, tag: str, value: str) -> None:
    if entry.number:
        _again(client.set_model_version_tag, name + SUFFIX, str(entry.number), tag, value)


def _append(client: "MlflowClient", model: "RegisteredModel", entry: Entry) -> None:
    """Write an entry; the store decides where it comes."""
    if not entry.follows or KEPT not in model.tags:
        _open(client, model.name)
    before = "" if entry.before is None else f"from version {entry.before} "
    _again(
        lambda: client.create_model_version(
            model.name + SUFFIX,
            f"models:/{model.name}/{entry.to}",
            tags={ENTRY: text_of(entry, model)},
            description=f"{entry.alias} {before}to version {entry.to}, by {entry.who}: {entry.why}",
        )
    )


def _open(client: "MlflowClient", name: str) -> None:
    """Make the record of `name` where there is none."""
    from mlflow.exceptions import MlflowException

    about = f"Who moved which alias of {name} when and why, a promotion a version. Written by dier: see dier history {name}"
    try:
        _again(lambda: client.create_registered_model(name + SUFFIX, tags={MARK: name}, description=about))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if MARK not in client.get_registered_model(name + SUFFIX).tags:
            raise SettingsError(
                f"the registered model {name + SUFFIX} is none of dier's, which keeps its record of promotions there: rename it"
            ) from error
    _again(client.set_registered_model_tag, name, KEPT, name + SUFFIX)


def _first(client: "MlflowClient", model: "RegisteredModel", mine: Entry) -> Entry:
    """Which promotion came first of those that follow the same one as `mine`, and what came of it once the alias has moved."""
    deadline = time.monotonic() + LAG_S
    while True:
        for entry in settle(client, model, mine.alias):
            if (entry.alias, entry.follows) == (mine.alias, mine.follows) and entry.number:
                return entry
        if time.monotonic() > deadline:
            raise SettingsError(f"the promotion written to {model.name + SUFFIX} is not there {LAG_S:g} s later: was it deleted?")
        time.sleep(0.2)


def _again(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call until the store takes it: it refuses one of two that write the same row at once, and who waits too long for a lock."""
    from mlflow.exceptions import MlflowException

    for attempt in range(ATTEMPTS):
        try:
            return call(*arguments)
        except MlflowException as error:
            busy = error.error_code in ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE") or "Giving up after" in str(error)
            if not busy or attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.02, 0.1) * (attempt + 1))
    raise AssertionError


def _who() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    try:
        return read_mlflow_creds().username or getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"
