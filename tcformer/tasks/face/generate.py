"""Generated faces with landmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tcformer.synthetic.options import GenerateFace

OPTIONS = GenerateFace


def generate(out: Path, options: GenerateFace, map: Callable[..., list[Any]]) -> None:
    """Write a generated dataset in the official layout below `out`; `map` applies a function to items in parallel."""
    from tcformer.synthetic.face import generate_face

    generate_face(out, options, map=map)
