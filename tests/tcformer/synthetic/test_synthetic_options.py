"""Values that cannot be drawn are refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from tcformer.errors import UserError
from tcformer.synthetic import GenerateWholebody, generate_wholebody
from tcformer.synthetic.options import GenerateFace, GenerateImagenet, GenerateMesh, check


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"clutter": 1.5},
        {"people": (0, 2)},
        {"people": (3, 1)},
        {"light_range": (1.2, 0.8)},
        {"image_size": (8, 256)},
        {"jpeg_quality": 0},
    ],
)
def test_refused(wrong: dict, wholebody_options: Callable[..., GenerateWholebody], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        generate_wholebody(tmp_path / "new", wholebody_options(**wrong))
    assert not (tmp_path / "new").exists()


def test_every_option_has_bounds(
    wholebody_options: Callable[..., GenerateWholebody],
    imagenet_options: Callable[..., GenerateImagenet],
    face_options: Callable[..., GenerateFace],
    mesh_options: Callable[..., GenerateMesh],
) -> None:
    for options in (wholebody_options(), imagenet_options(), face_options(), mesh_options()):
        check(options)
        assert options.__pydantic_config__ == {"extra": "forbid", "strict": True}
        assert all(field.default is field.default_factory for field in fields(options))  # both MISSING
