"""The decorator of dataclasses that are sections of params.yaml."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

_Class = TypeVar("_Class", bound=type[Any])


@dataclass_transform(frozen_default=True)
def parameters(cls: _Class) -> _Class:
    """Make `cls` a frozen dataclass that pydantic reads strictly: unknown keys are errors, values are never coerced."""
    cls.__pydantic_config__ = {"extra": "forbid", "strict": True}
    return dataclasses.dataclass(frozen=True)(cls)
