"""Generated images to classify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tcformer.synthetic.options import GenerateImagenet

OPTIONS = GenerateImagenet


def generate(out: Path, options: GenerateImagenet, map: Callable[..., list[Any]]) -> None:
    """Write a generated dataset in the official layout below `out`; `map` applies a function to items in parallel."""
    from tcformer.synthetic.imagenet import generate_imagenet

    generate_imagenet(out, options, map=map)
