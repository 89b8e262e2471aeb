"""Values in a tree of mappings, such as params.yaml, by dotted names; and how such values are spelt."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any


def lookup(tree: Any, name: str, default: Any = None) -> Any:
    """The value at a dotted name, or `default` if there is none."""
    for key in name.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return default
        tree = tree[key]
    return tree


def assign(tree: MutableMapping[str, Any], name: str, value: Any) -> None:
    """Set the value at a dotted name; missing sections are added."""
    *sections, leaf = name.split(".")
    for key in sections:
        tree = tree.setdefault(key, {})
    tree[leaf] = value


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All values that are no mappings, by dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def parameter_text(value: object) -> str:
    """A value as params.yaml would spell it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)
