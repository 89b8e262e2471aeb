"""Generated people with body meshes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tcformer.synthetic.options import GenerateMesh

OPTIONS = GenerateMesh


def generate(out: Path, options: GenerateMesh, map: Callable[..., list[Any]]) -> None:
    """Write a generated dataset in the official layout below `out`; `map` applies a function to items in parallel."""
    from tcformer.synthetic.mesh import generate_mesh

    generate_mesh(out, options, map=map)
