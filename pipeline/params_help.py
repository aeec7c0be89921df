"""`dier params` and `dier preset`: every setting with its meaning, and a whole params.yaml, read off the schema itself."""

import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components.common.settings import SECTIONS, Settings, load

NARROWEST, WIDEST = 80, 120
INDENT = "      "
KIND_AT = 40
"""Column after which a setting's type and range begin, where its name and default are short enough."""

# JSON Schema's words for bounds; pydantic falls back to its own where a validator stands before the type.
BOUNDS = {">=": ("minimum", "ge"), ">": ("exclusiveMinimum", "gt"), "<=": ("maximum", "le"), "<": ("exclusiveMaximum", "lt")}
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true | false", "null": "null"}


def params_table(width: int | None = None) -> str:
    """Every setting, grouped by section, for a terminal of `width` columns (default: the one at hand, 80 to 120)."""
    columns = shutil.get_terminal_size((WIDEST, 24)).columns if width is None else width
    columns = min(max(columns, NARROWEST), WIDEST)
    defaults = Settings()
    intro = "Settings of params.yaml. A setting is changed there, or for one run with --set section.key=value."
    blocks = [textwrap.fill(intro, columns)]
    for name in SECTIONS:
        section = defaults.section(name)
        schema = type(section).model_json_schema()
        lines = _wrap(f"{name}: {schema['description']}", columns, "")
        for key, field in schema["properties"].items():
            lines += _setting(f"{name}.{key}", getattr(section, key), field, columns)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


class _Dumper(yaml.SafeDumper):
    """A list on one line."""


_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True))


def params_file(preset: Path, overrides: Sequence[str] = ()) -> str:
    """A params.yaml with every setting, since DVC sees no other: the defaults, but for what `preset` and `overrides` say."""
    settings = load(preset, list(overrides))
    sections = {name: settings.section(name).model_dump(mode="json") for name in SECTIONS}
    head = f"# Made by: dier preset {preset}. `dier params` prints every setting with its unit and meaning.\n"
    return head + "".join(f"\n{yaml.dump({name: values}, Dumper=_Dumper, sort_keys=False)}" for name, values in sections.items())


def _setting(key: str, default: Any, field: dict[str, Any], columns: int) -> list[str]:
    """One setting: name, default and what it may be on a line where they fit, and below what it means."""
    head, may_be = f"  {key} = {text_of(default)}", f"[{kind(field)}]"
    beside = f"{head:{KIND_AT}}  {may_be}"
    lines = [beside] if len(beside) <= columns else [*_wrap(head, columns, "  "), *_wrap(may_be, columns, INDENT)]
    return lines + _wrap(field["description"], columns, INDENT)


def _wrap(text: str, columns: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text.strip(), columns, initial_indent=indent, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )


def text_of(value: Any) -> str:
    """A default as one would write it in params.yaml."""
    return value if isinstance(value, str) else json.dumps(value)


def kind(field: dict[str, Any]) -> str:
    """A field's type and range in words, from its JSON schema."""
    if "anyOf" in field:
        return " or ".join(kind(choice) for choice in field["anyOf"])
    if "enum" in field:
        return " | ".join(text_of(value) for value in field["enum"])
    if "const" in field:
        return text_of(field["const"])
    if field["type"] == "array":
        return f"{'non-empty list' if field.get('minItems') else 'list'}, each {kind(field['items'])}"
    if "pattern" in field:
        return f"text matching {field['pattern']}"
    bounds = {sign: field[name] for sign, names in BOUNDS.items() for name in names if name in field}
    return TYPES[field["type"]] + (" " + _range(bounds) if bounds else "")


def _range(bounds: dict[str, float]) -> str:
    if set(bounds) == {">=", "<="}:
        return f"{bounds['>=']:g} .. {bounds['<=']:g}"
    return ", ".join(f"{sign} {value:g}" for sign, value in bounds.items())
