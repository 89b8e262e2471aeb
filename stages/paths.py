"""The type of options that are paths."""

import os
from pathlib import Path
from typing import Any

import click


class _UserPath(click.Path):
    """A path in which `~` is the home folder, also in `--weights=~/model.safetensors`, where a shell leaves it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - Click's
        return super().convert(os.path.expanduser(value), param, ctx)


FILE = _UserPath(path_type=Path)
