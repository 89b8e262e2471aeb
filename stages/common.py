"""What every stage begins with: its arguments and the parameters."""

import argparse
from collections.abc import Sequence

from pipelines.layout import PARAMS, Layout
from pipelines.params import Params, load_params

#: Tasks that start from the pretrained backbone.
FINETUNED = ("wholebody", "face", "mesh")


def begin(
    description: str | None, tasks: Sequence[str], *flags: tuple[str, str]
) -> tuple[argparse.Namespace, Params, Layout]:
    """Parse the command line (a task, where the stage has several, and boolean flags) and read params.yaml."""
    parser = argparse.ArgumentParser(description=description)
    if tasks:
        parser.add_argument("task", choices=tasks)
    for name, meaning in flags:
        parser.add_argument(name, action="store_true", help=meaning)
    arguments = parser.parse_args()
    params = load_params(PARAMS)
    return arguments, params, Layout(params.recipe)
