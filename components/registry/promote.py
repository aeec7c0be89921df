"""`dier promote` and `dier rollback`: what may move an alias, and what is said about it. How it moves is in promotions.py."""

import json
import re
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.common.errors import GateRefused, SettingsError
from components.registry import promotions, versions
from components.registry.promotions import Entry, Overtaken
from components.tracking.client import connect, one_line_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

MAX_REASON = 2000
"""Characters: a reason is a sentence or two, and has to fit a tag."""


def promote(
    name: str,
    *,
    version: int | None,
    alias: str,
    force: bool,
    reason: str | None,
    expect: int | None = None,
    since: datetime | None = None,
) -> str:
    """Point `alias` at `version` (default: the candidate), record it, and say what happened.

    Nothing moves where the alias does not point at `expect`, or was moved since `since`, when whoever asks last looked, or while
    this runs: then Overtaken is raised. Raises SettingsError for what does not exist or `force` without a reason, GateRefused for
    what the gate refused unless forced.
    """
    why = _sentence(reason)
    if force and not why:
        raise SettingsError("--force needs --reason TEXT: the record keeps why the gate was overruled")
    _check_alias(alias)
    client = connect(must_exist=True)
    with one_line_errors():
        model = versions.registered(client, name)
        chosen = _choose(client, model, version)
        gate = chosen.tags.get(versions.GATE_TAG, "unknown")
        number = int(chosen.version)
        last = promotions.last(promotions.settle(client, model, alias), alias)
        model = client.get_registered_model(name)
        at = _at(model, alias)
        if at == number:
            return _already(name, number, alias, promotions.last(promotions.record(client, model), alias))
        _check_not_moved(name, last, at, number, alias, expect, since)
        if gate not in (versions.PASSED, versions.UNCOMPARED) and not force:
            raise GateRefused(_refusal(name, number, chosen))
        try:
            made = promotions.move(
                client, model, alias, number, follows=last, why=why or f"the gate: {gate}", gate=gate, forced=force
            )
        except Overtaken as error:
            if error.first is not None and error.first.to == number:
                return _already(name, number, alias, error.first)
            raise
    return _moved(name, made)


def rollback(name: str, *, version: int | None, alias: str, reason: str | None, since: datetime | None = None) -> str:
    """Point `alias` back at `version`, one that it pointed at before (default: the last such), record it, and say what happened.

    The gate is not asked again. Raises Overtaken as `promote` does, SettingsError where there is nothing to go back to.
    """
    why = _sentence(reason)
    _check_alias(alias)
    client = connect(must_exist=True)
    with one_line_errors():
        model = versions.registered(client, name)
        known = {int(found.version): found for found in versions.versions(client, name)}
        entries = promotions.settle(client, model, alias)
        model = client.get_registered_model(name)
        last, at = promotions.last(entries, alias), _at(model, alias)
        target = version if version is not None else _earlier(entries, name, alias, at, known)
        if target == at:
            return _already(name, target, alias, promotions.last(promotions.record(client, model), alias))
        ever = _ever(entries, alias, known)
        if target not in ever:
            there = ", ".join(map(str, ever)) or "none"
            raise SettingsError(f"{name} version {target} was never {alias} (there were: {there}); dier promote {name} makes it so")
        _check_not_moved(name, last, at, target, alias, None, since)
        gate = known[target].tags.get(versions.GATE_TAG, "unknown")
        made = promotions.move(
            client, model, alias, target, follows=last, why=why or "rolled back", gate=gate, kind=promotions.ROLLBACK
        )
    return _moved(name, made)


def _ever(entries: list[Entry], alias: str, known: Container[int]) -> list[int]:
    """The versions there are that `alias` has pointed at."""
    pointed = [number for one in entries if one.alias == alias and one.moved for number in (one.before, one.to) if number]
    return sorted(number for number in set(pointed) if number in known)


def _earlier(entries: list[Entry], name: str, alias: str, at: int | None, known: Container[int]) -> int:
    for number in line(entries, alias, at):
        if number in known and number != at:
            return number
    raise SettingsError(f"{name} has no earlier {alias} to go back to; promote a version with dier promote {name} --version N")


def line(entries: Iterable[Entry], alias: str, at: int | None) -> list[int]:
    """The versions to go back to, newest first, where `alias` is `at` now: those that a rollback left behind are not among them."""
    held: list[int] = []
    for entry in entries:
        if entry.alias != alias or not entry.moved:
            continue
        if entry.before is not None and held[-1:] != [entry.before]:  # moved by other means, or unrecorded
            held.append(entry.before)
        if entry.kind == promotions.ROLLBACK and entry.to in held:
            del held[len(held) - held[::-1].index(entry.to) :]
        else:
            held.append(entry.to)
    if at is not None and held[-1:] != [at]:
        held.append(at)
    return held[-2::-1]


def _check_not_moved(
    name: str, last: Entry | None, at: int | None, number: int, alias: str, expect: int | None, since: datetime | None
) -> None:
    """A promotion that was recorded after `since` is one that whoever asked could not know of.

    One in the future says that clocks differ: then only the order of the record tells, which needs none.
    """
    if expect is not None and at != expect:
        where = "no version" if at is None else f"version {at}"
        raise Overtaken(f"{name}: {alias} is at {where}, not at version {expect} as expected, so version {number} was not promoted")
    if since is not None and last is not None and since <= datetime.fromisoformat(last.when) <= datetime.now(UTC):
        raise promotions.overtaken(name, last, number)


def _at(model: "RegisteredModel", alias: str) -> int | None:
    return int(model.aliases[alias]) if alias in model.aliases else None


def _check_alias(alias: str) -> None:
    if not re.fullmatch(r"(?!latest$|[vV]\d+$)[A-Za-z][A-Za-z0-9_-]{0,99}", alias):  # MLflow's own rule, and a sane length
        raise SettingsError(f"{alias!r} cannot be an alias: use letters, digits, - and _, but neither latest nor v1, v2, ...")


def _sentence(reason: str | None) -> str:
    why = " ".join((reason or "").split())
    if len(why) > MAX_REASON:
        raise SettingsError(f"--reason is {len(why)} characters long, {MAX_REASON} fit the record: shorten it")
    return why


def _already(name: str, number: int, alias: str, last: Entry | None) -> str:
    by = f" (moved by {last.who}, {last.when})" if last is not None and last.withdrawn is None and last.to == number else ""
    return f"{name} version {number} is {alias} already{by}; nothing to do"


def _moved(name: str, made: Entry) -> str:
    moved = f"from version {made.before} to version {made.to}" if made.before else f"to version {made.to}"
    what = f"{name}: {made.alias} moved {'back ' if made.kind == promotions.ROLLBACK else ''}{moved}"
    return f"{what} (gate {made.gate}{', forced' if made.forced else ''}); recorded as promotion {made.number}"


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
