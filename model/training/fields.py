"""Pydantic types of settings: sections that refuse what they do not know, numbers as YAML and Kubeflow write them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text, and Kubeflow hands every integer over as a float; both are meant as numbers."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a truth value")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"a number is needed, not the text {value!r}") from None
    return value


def _whole(value: Any) -> Any:
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _off(value: Any) -> Any:
    """YAML 1.1 reads off as a truth value."""
    return "off" if value is False else value


Float = Annotated[float, BeforeValidator(_number)]
Int = Annotated[int, BeforeValidator(_whole)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Off = BeforeValidator(_off)


class Section(BaseModel):
    """Unknown keys and loose types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def record(self) -> dict[str, Any]:
        """The settings as JSON values. Of a path the last part alone: no artifact names a place on a machine."""
        values = self.model_dump(mode="json")
        return {key: Path(value).name if key == "path" and value is not None else value for key, value in values.items()}
