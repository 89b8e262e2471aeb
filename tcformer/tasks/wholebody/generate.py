"""Generated people with whole-body keypoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tcformer.synthetic.options import GenerateWholebody

OPTIONS = GenerateWholebody


def generate(out: Path, options: GenerateWholebody, map: Callable[..., list[Any]]) -> None:
    """Write a generated dataset in the official layout below `out`; `map` applies a function to items in parallel."""
    from tcformer.synthetic.wholebody import generate_wholebody

    generate_wholebody(out, options, map=map)
