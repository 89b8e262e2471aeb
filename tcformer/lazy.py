"""Lazy imports: a package imports a public name at its first use, so that small modules load without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Make the function `__getattr__` of a package.

    Args:
        package: the package's `__name__`.
        modules: each public name and the module that defines it, relative to the package.
    """

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return load
