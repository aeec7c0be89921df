"""What a training is of, by name: the data's fingerprint, settings, digests of the code; and how two of them differ."""

import ast
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

RunConfiguration = Mapping[str, Any]
FILE = "run_configuration.json"
LISTED = 8
"""Differences spelled out in one line; of more than these the rest is counted."""


def code_digest(file: Path) -> str:
    """Hex sha256 of a Python file's syntax tree, without comments, layout, docstrings and descriptions of settings."""
    return hashlib.sha256(repr(_syntax(ast.parse(file.read_bytes()))).encode()).hexdigest()


def code_digests(folder: Path) -> dict[str, str]:
    """`code_digest` of every Python file in a folder and those below it, by its path from the folder's parent."""
    return {file.relative_to(folder.parent).as_posix(): code_digest(file) for file in sorted(folder.rglob("*.py"))}


def _syntax(node: Any) -> Any:
    """A syntax tree as nested lists. Empty fields are left out: that other versions of Python have more of them changes nothing."""
    if isinstance(node, list):
        return [_syntax(part) for part in node if not _is_text(part)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    return [type(node).__name__, *((name, _syntax(value)) for name, value in fields)]


def _is_text(node: Any) -> bool:
    """A docstring (of a constant too), or the description of a setting, which explains as they do."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.keyword) and node.arg == "description"


def differences(then: RunConfiguration, now: RunConfiguration) -> str:
    """Each entry that differs with both its values, digests shortened, in one line; empty where all are equal."""
    names = _differing(then, now)
    listed = [f"{name} was {_shown(then, name)}, is {_shown(now, name)}" for name in names[:LISTED]]
    return "; ".join(listed + [f"and {len(names) - LISTED} more"] * (len(names) > LISTED))


def most_alike(folder: Path, configuration: RunConfiguration) -> str | None:
    """Of the checkpoints in folders beside `folder`, the one that differs in the fewest entries, and in which, in one line."""
    found = []
    with suppress(OSError):  # a folder that somebody removes meanwhile
        for file in folder.parent.glob(f"*/step-*/{FILE}"):
            with suppress(OSError, ValueError):
                then = json.loads(file.read_bytes())
                different = differences(then, configuration)
                found.append((-len(_differing(then, configuration)), file.parent.name, str(file.parent), different))
    found = [entry for entry in found if entry[0]]
    if not found:
        return None
    _, _, path, different = max(found)
    return f"{path} is of another training: {different}"


def _differing(then: RunConfiguration, now: RunConfiguration) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name, ...) != now.get(name, ...))


def _shown(configuration: RunConfiguration, name: str) -> str:
    if name not in configuration:
        return "absent"
    value = configuration[name]
    return value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value)
