"""Weights files whose metadata are not those of a training end in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.trained import trained_task
from tcformer import create_model, save_model
from tcformer.errors import UserError


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"options": "{}"},
        *(
            {"training": "x", "options": text}
            for text in ("", "null", "[]", "{}", '{"network": 3}', "[" * 100_000, "1")
        ),
    ],
)
def test_odd_options_are_named(metadata: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(create_model("tcformer_nano", "face"), path, metadata)
    with pytest.raises(UserError, match=r"no options of a training|options that this version does not know"):
        trained_task("face", path)
