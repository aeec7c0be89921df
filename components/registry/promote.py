"""`dier promote` and `dier rollback`: what may move an alias, and what is said about it. How it moves is in promotions.py."""

import re
from collections.abc import Container, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from components.common.errors import GateRefused, SettingsError
from components.registry import promotions, versions
from components.registry.champions import beside
from components.registry.entry import ROLLBACK, Entry, made_since
from components.registry.gate import Gate
from components.registry.promotions import Overtaken
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
    this runs: then Overtaken is raised. Where the gate had another champion beside the version than the one of now, the two are
    compared anew. Raises SettingsError for what does not exist or `force` without a reason, GateRefused for what the gate refused
    unless forced.
    """
    why = _sentence(reason)
    if force and not why:
        raise SettingsError("--force needs --reason TEXT: the record keeps why the gate was overruled")
    _check_alias(alias)
    client = connect(must_exist=True)
    with one_line_errors():
        model = _registered(client, name)
        chosen = _choose(client, model, version)
        number = int(chosen.version)
        last = promotions.last(promotions.settle(client, model, alias), alias)
        model = client.get_registered_model(name)
        at = _at(model, alias)
        if at == number:
            return _already(name, number, alias, promotions.last(promotions.record(client, model), alias))
        _check_not_moved(name, last, at, number, alias, expect, since)
        gate = beside(client, chosen, at if alias == versions.CHAMPION else None)
        if gate.verdict not in (versions.PASSED, versions.UNCOMPARED) and not force:
            raise GateRefused(_refusal(name, number, gate))
        why = why or f"the gate: {gate.verdict}"
        try:
            made = promotions.move(client, model, alias, number, follows=last, why=why, gate=gate.verdict, forced=force)
        except Overtaken as error:
            return _same(name, number, alias, error)
    return _moved(name, made)


def rollback(name: str, *, version: int | None, alias: str, reason: str | None, since: datetime | None = None) -> str:
    """Point `alias` back at `version`, one that it pointed at before (default: the last such), record it, and say what happened.

    The gate is not asked again. Raises Overtaken as `promote` does, SettingsError where there is nothing to go back to.
    """
    why = _sentence(reason)
    _check_alias(alias)
    client = connect(must_exist=True)
    with one_line_errors():
        model = _registered(client, name)
        known = {int(found.version): found for found in versions.versions(client, name)}
        entries = promotions.settle(client, model, alias)
        model = client.get_registered_model(name)
        last, at = promotions.last(entries, alias), _at(model, alias)
        news = [entry for entry in entries if entry.alias == alias and made_since(entry, since)]
        target = version
        if target is None:  # the one before that which whoever asked could know of
            target = _earlier([one for one in entries if one not in news], name, alias, news[0].before if news else at, known)
        if target == at:
            return _already(name, target, alias, promotions.last(promotions.record(client, model), alias))
        ever = _ever(entries, alias, known)
        if target not in ever:
            there = ", ".join(map(str, ever)) or "none"
            raise SettingsError(f"{name} version {target} was never {alias} (there were: {there}); dier promote {name} makes it so")
        _check_not_moved(name, last, at, target, alias, None, since)
        gate = known[target].tags.get(versions.GATE_TAG, "unknown")
        why = why or "rolled back"
        try:
            made = promotions.move(client, model, alias, target, follows=last, why=why, gate=gate, kind=ROLLBACK)
        except Overtaken as error:
            return _same(name, target, alias, error)
    return _moved(name, made)


def _ever(entries: list[Entry], alias: str, known: Container[int]) -> list[int]:
    """The versions there are that `alias` has pointed at."""
    pointed = [number for one in entries if one.alias == alias and one.moved for number in (one.before, one.to) if number]
    return sorted(number for number in set(pointed) if number in known)


def _earlier(entries: list[Entry], name: str, alias: str, at: int | None, known: Container[int]) -> int:
    for number in way_back(entries, alias, at):
        if number in known and number != at:
            return number
    raise SettingsError(f"{name} has no earlier {alias} to go back to; promote a version with dier promote {name} --version N")


def way_back(entries: Iterable[Entry], alias: str, at: int | None) -> list[int]:
    """The versions to go back to, newest first, where `alias` is `at` now: those that a rollback left behind are not among them.

    Where the alias was deleted (None) the first is the one that it was at.
    """
    held: list[int] = []
    for entry in entries:
        if entry.alias != alias or not entry.moved:
            continue
        if entry.before is not None and held[-1:] != [entry.before]:  # moved by other means, or unrecorded
            held.append(entry.before)
        if entry.kind == ROLLBACK and entry.to in held:
            del held[len(held) - held[::-1].index(entry.to) :]
        else:
            held.append(entry.to)
    if at is None:
        return held[::-1]
    if held[-1:] != [at]:
        held.append(at)
    return held[-2::-1]


def _check_not_moved(
    name: str, last: Entry | None, at: int | None, number: int, alias: str, expect: int | None, since: datetime | None
) -> None:
    if expect is not None and at != expect:
        where = "no version" if at is None else f"version {at}"
        raise Overtaken(f"{name}: {alias} is at {where}, not at version {expect} as expected, so version {number} was not promoted")
    if last is not None and made_since(last, since):
        raise promotions.overtaken(name, last, number)


def _registered(client: "MlflowClient", name: str) -> "RegisteredModel":
    """The model, whose aliases may be moved. Raises SettingsError for one that is none, but the record of another."""
    model = versions.registered(client, name)
    if promotions.MARK in model.tags:
        raise SettingsError(f"{name} is the record of promotions of {model.tags[promotions.MARK]} and no model: name the model")
    return model


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


def _same(name: str, number: int, alias: str, error: Overtaken) -> str:
    """What is said where whoever came first moved the alias to this version too; otherwise the error stands."""
    if error.first is None or error.first.withdrawn is not None or error.first.to != number:
        raise error
    return _already(name, number, alias, error.first)


def _already(name: str, number: int, alias: str, last: Entry | None) -> str:
    by = f" (moved by {last.who}, {last.when})" if last is not None and last.withdrawn is None and last.to == number else ""
    return f"{name} version {number} is {alias} already{by}; nothing to do"


def _moved(name: str, made: Entry) -> str:
    moved = f"from version {made.before} to version {made.to}" if made.before else f"to version {made.to}"
    what = f"{name}: {made.alias} moved {'back ' if made.kind == ROLLBACK else ''}{moved}"
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


def _refusal(name: str, number: int, gate: Gate) -> str:
    if gate.verdict == versions.REFUSED:
        what = f"the gate refused {name} version {number}: {'; '.join(gate.reasons)}"
    else:
        what = f"{name} version {number} never went through the gate (it was not registered by dier)"
    return f"{what}; to promote it all the same add --force --reason TEXT"
