"""What holds for the options of every task."""

import json
from dataclasses import fields, is_dataclass
from typing import Any

import pytest


def options_are_strict(options: Any) -> None:
    """Options survive JSON; an unknown key, or a value of another type in any field, is an error."""
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(type(options))
    tree = json.loads(adapter.dump_json(options))
    assert adapter.validate_json(json.dumps(tree)) == options
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_json(json.dumps({**tree, "unknown": 1}))
    for field in fields(options):
        wrong = 3 if is_dataclass(getattr(options, field.name)) else {}
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_json(json.dumps({**tree, field.name: wrong}))
