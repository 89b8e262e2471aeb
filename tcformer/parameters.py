"""The decorator of the dataclasses that are sections of params.yaml."""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def parameters(cls: type[_Class]) -> type[_Class]:
    """Make `cls` a frozen dataclass that takes keywords only.

    pydantic reads it strictly: unknown keys are errors, and values are never coerced.
    """
    setattr(cls, "__pydantic_config__", {"extra": "forbid", "strict": True})  # noqa: B010, unknown to type checkers
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)
