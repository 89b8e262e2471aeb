"""The reference of all parameters, made from the schema of params.yaml: a page of the documentation."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipelines.dotted import lookup
from pipelines.params import Params, RecipeBase, fields

_RECIPES = ("sample", "paper")
_INTRODUCTION = """# All parameters

The file `params.yaml` holds every parameter. This page is made from the schema that checks the file, with the values of
both recipes. An unknown, misspelt or mistyped parameter stops every command with its line and the nearest right name.

```
dvc exp run -S sample.finetune.wholebody.training.optimizer.lr=2e-3   # change one without editing the file
dvc params diff                                                       # what differs from the last commit
```

A parameter of a recipe is named `sample.<name>` or `paper.<name>`. *both* means the value of both recipes; - means that
the recipe does not have this section.
"""
_TYPES: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


@dataclass(frozen=True)
class Parameter:
    """One line of the reference.

    Attributes:
        section: dotted name of its section, without the recipe; "" for those of the whole file.
        name: its key.
        type: what values it takes, in words.
        meaning: the comment in the schema or in params.yaml, "" if there is none.
    """

    section: str
    name: str
    type: str
    meaning: str


def parameter_page(file: Path) -> str:
    """The page in Markdown, with the values in `file`."""
    tree = YAML().load(file.read_text(encoding="utf-8"))
    lines = [_INTRODUCTION]
    section = None
    for parameter in all_parameters(tree):
        in_recipe = parameter.section != "" and parameter.section.split(".")[0] not in tree
        if parameter.section != section:
            section = parameter.section
            lines.append(f"\n## {f'`{section}`' if section else 'The whole file'}\n")
            lines.append("| parameter | values | value | meaning |\n| --- | --- | --- | --- |")
        roots: list[Any] = [tree[recipe] for recipe in _RECIPES] if in_recipe else [tree]
        name = f"{section}.{parameter.name}".lstrip(".")
        value = _values([_value(root, name) for root in roots])
        cells = (f"`{parameter.name}`", parameter.type, value, parameter.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def all_parameters(tree: Mapping[str, Any]) -> list[Parameter]:
    """Every parameter of the file, those of recipes once, in the order of the schema.

    Args:
        tree: params.yaml, whose comments explain what the schema does not.
    """
    of_file = {name: section for name, section in fields(Params).items() if name not in _RECIPES}
    top = [
        Parameter("", name, _type_text(kind, Params, name), _comment(Params, name) or _yaml_comment([tree], "", name))
        for name, kind in of_file.items()
        if not fields(kind)
    ]
    sections = [found for name, kind in of_file.items() if fields(kind) for found in _parameters(kind, name, [tree])]
    recipe = Params.model_fields["sample"].annotation
    assert isinstance(recipe, type) and issubclass(recipe, RecipeBase)
    found = [*top, *sections, *_parameters(recipe, "", [tree[name] for name in _RECIPES])]
    # What two sections share is explained once.
    meanings = {(parameter.name, parameter.type): parameter.meaning for parameter in found[::-1] if parameter.meaning}
    return [
        replace(parameter, meaning=parameter.meaning or meanings.get((parameter.name, parameter.type), ""))
        for parameter in found
    ]


def _parameters(section: object, name: str, trees: list[Any]) -> Iterator[Parameter]:
    """The parameters of a section, then those of the sections in it."""
    model = _model(section)
    inner = []
    for key, kind in fields(model).items():
        element = _element(kind)
        if fields(kind) or fields(element):
            inner.append((kind if fields(kind) else element, f"{name}.{key}".lstrip(".")))
        if not fields(kind) or int in _alternatives(kind):  # a number or a section
            meaning = _comment(model, key) or _yaml_comment(trees, name, key)  # type: ignore[arg-type]  # classes are hashable
            yield Parameter(name, key, _type_text(kind, model, key), meaning)
    for kind, below in inner:
        yield from _parameters(kind, below, trees)


def _alternatives(kind: object) -> list[Any]:
    """The types of `X | Y`, without the limits of `Annotated[X, ...]`; of another type itself."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    found = typing.get_args(kind) if union else (kind,)
    return [typing.get_args(one)[0] if typing.get_origin(one) is typing.Annotated else one for one in found]


def _model(section: object) -> type[Any]:
    """The class of a section, also inside `X | None` and `tuple[X, ...]`."""
    candidates = (*_alternatives(section), *typing.get_args(section))
    return next(one for one in candidates if inspect.isclass(one) and fields(one))


def _element(kind: object) -> object:
    """The type of the elements of `tuple[X, ...]`."""
    arguments = typing.get_args(kind)
    return arguments[0] if typing.get_origin(kind) is tuple and arguments else None


def _type_text(kind: object, model: type[object], name: str) -> str:
    info = getattr(model, "model_fields", {}).get(name)
    limits = [
        f"{words} {getattr(limit, key):g}"
        for limit in getattr(info, "metadata", ())
        for key, words in _LIMITS.items()
        if hasattr(limit, key)
    ]
    return ", ".join([_words(kind), *limits])


def _words(kind: object) -> str:
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _words(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is tuple:
        of = _words(arguments[0])
        return f"list: {of}" if arguments[-1] is Ellipsis else f"list of {len(arguments)}: {of}"
    return _TYPES.get(kind, "section" if fields(kind) else "mapping")


@cache
def _comment(model: type[object], name: str) -> str:
    """What the source of a class, or of one that it inherits from, says about a field.

    The text stands above the field after `#:`, behind it after `#`, or below it as a docstring.
    """
    origin = getattr(model, "__pydantic_generic_metadata__", {}).get("origin") or model
    for cls in origin.__mro__:
        try:
            source = textwrap.dedent(inspect.getsource(cls))
        except (OSError, TypeError):  # made by a function, or of the interpreter
            continue
        lines, tree = source.splitlines(), ast.parse(source).body[0]
        assert isinstance(tree, ast.ClassDef)
        for node, following in zip_longest(tree.body, tree.body[1:]):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                before = [line.strip() for line in reversed(lines[: node.lineno - 1])]
                above = list(takewhile(lambda line: line.startswith("#:"), before))
                text = " ".join(line.lstrip("#: ") for line in reversed(above))
                behind = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :]
                return text or behind.strip().lstrip("# ") or _docstring(following)
    return ""


def _docstring(node: ast.stmt | None) -> str:
    constant = node.value if isinstance(node, ast.Expr) else None
    text = constant.value if isinstance(constant, ast.Constant) else ""
    return " ".join(text.split()) if isinstance(text, str) else ""


def _yaml_comment(trees: list[Any], section: str, name: str) -> str:
    """The comment behind a key of params.yaml, in the first of `trees`."""
    node = lookup(trees[0], section) if section else trees[0]
    if not isinstance(node, CommentedMap) or name not in node.ca.items:
        return ""
    tokens = [token.value for token in node.ca.items[name] if hasattr(token, "value")]
    lines = [token.split("\n")[0].lstrip("# ").strip() for token in tokens]
    return str(next(filter(None, lines), ""))


_MISSING = object()


def _value(tree: object, name: str) -> str:
    """The value at a dotted name as text; - if it is not in the file."""
    value = lookup(tree, name, _MISSING)
    if value is _MISSING:
        return "-"
    text = json.dumps(value, default=str)
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        return f"{len(value)} sections"
    return f"`{text.strip(chr(34))}`"


def _values(values: list[str]) -> str:
    if len(values) == 1:
        return values[0]
    if values[0] == values[1]:
        return f"both {values[0]}" if values[0] != "-" else "-"
    return ", ".join(f"{recipe} {value}" for recipe, value in zip(_RECIPES, values, strict=True) if value != "-")
