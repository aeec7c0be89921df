"""What a training is of: facts by name (the data's fingerprint, settings, digests of the code), and how two sets of them differ."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]
LISTED = 8
"""Differences spelled out in one line; of more than these the rest is counted."""


def differences(then: Facts, now: Facts) -> str:
    """Each fact that differs with both its values, digests shortened, in one line; empty where all are equal."""
    names = _differing(then, now)
    listed = [f"{name} was {_shown(then, name)}, is {_shown(now, name)}" for name in names[:LISTED]]
    return "; ".join(listed + [f"and {len(names) - LISTED} more"] * (len(names) > LISTED))


def most_alike(folder: Path, facts: Facts) -> str | None:
    """Of the checkpoints in folders beside `folder`, the one that differs in the fewest facts, and in which, in one line."""
    found = []
    for file in folder.parent.glob("*/step-*/facts.json"):
        with suppress(OSError, ValueError):
            then = json.loads(file.read_bytes())
            found.append((-len(_differing(then, facts)), file.parent.name, str(file.parent), differences(then, facts)))
    found = [entry for entry in found if entry[0]]
    if not found:
        return None
    _, _, path, different = max(found)
    return f"{path} is of another training: {different}"


def _differing(then: Facts, now: Facts) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name, ...) != now.get(name, ...))


def _shown(facts: Facts, name: str) -> str:
    if name not in facts:
        return "absent"
    value = facts[name]
    return value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value)
