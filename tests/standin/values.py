"""Values as Kubeflow holds them, protobuf's Struct: every number is a float; and the texts that Go makes of them."""

import json
import math
from decimal import Decimal
from typing import Any

from tests.standin.errors import Unsupported

Value = Any
"""None, bool, float, str, list of them, or dict of them by name."""

KINDS = {
    type(None): "NullValue",
    bool: "BoolValue",
    float: "NumberValue",
    str: "StringValue",
    list: "ListValue",
    dict: "StructValue",
}


def as_value(raw: Any) -> Value:
    """What is left of a JSON value in a Struct: 3 becomes 3.0, and NaN is no JSON."""
    if isinstance(raw, bool) or raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, int | float):
        if not math.isfinite(raw):
            raise Unsupported(f"{raw} is no JSON")
        return float(raw)
    if isinstance(raw, list | tuple):
        return [as_value(one) for one in raw]
    if isinstance(raw, dict):
        return {str(key): as_value(one) for key, one in raw.items()}
    raise Unsupported(f"{type(raw).__name__} is no value of a pipeline")


def kind(value: Value) -> str:
    """Go's name of the value's type, as its messages show it."""
    return f"*structpb.Value_{KINDS[type(value)]}"


def number(value: float) -> str:
    """A float as Go's encoding/json writes it: no .0, exponents only far from 1."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f")
    digits, _, exponent = repr(value).partition("e")
    return f"{digits}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-').lstrip('0')}"


def go_json(value: Value) -> str:
    """JSON as Go writes it: keys sorted, no spaces, and the three letters that HTML minds escaped."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{go_json(key)}:{go_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(go_json(one) for one in value) + "]"
    if isinstance(value, float):
        return number(value)
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e") if isinstance(value, str) else text


def text(value: Value) -> str:
    """A value inside a command.

    KFP 2.17.0 backend/src/v2/driver/util.go:138 and component/launcher_v2.go:1140: strings as they are, the rest as JSON.
    """
    return value if isinstance(value, str) else "" if value is None else go_json(value)


def parsed(content: str, parameter_type: str) -> Value:
    """An output parameter's file, read. KFP 2.17.0 backend/src/v2/metadata/converter.go:50."""
    wanted = {"LIST": list, "STRUCT": dict, "BOOLEAN": bool, "NUMBER_INTEGER": float, "NUMBER_DOUBLE": float}
    if parameter_type == "STRING":
        return content
    value = as_value(json.loads(content))
    if not isinstance(value, wanted[parameter_type]):
        raise ValueError(f'TextToPbValue(text="{content}", type="{parameter_type}") failed: unexpected type')
    return value
