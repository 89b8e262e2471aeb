"""What every stage begins with: its arguments and the parameters."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.prepared import Prepared
from pipelines.layout import PARAMS, Layout
from pipelines.params import Params, load_params
from pipelines.running.process import LOCAL_HELP, work_locally


@dataclass(frozen=True)
class Start:
    """What a stage was started with.

    Attributes:
        task: from the command line; "" for a stage without one.
        fresh: whether --fresh was given.
        params: of params.yaml.
        layout: the folders of the recipe.
    """

    task: str
    fresh: bool
    params: Params
    layout: Layout


def begin(description: str | None, tasks: Sequence[str] = (), fresh: bool = False, local: bool = False) -> Start:
    """Parse the command line and read params.yaml.

    Args:
        description: for --help.
        tasks: the values of the argument TASK; none: there is no such argument.
        fresh: whether the stage has the option --fresh.
        local: whether the stage has the option --local.
    """
    parser = argparse.ArgumentParser(description=description)
    if tasks:
        parser.add_argument("task", choices=tasks)
    if fresh:
        parser.add_argument("--fresh", action="store_true", help="remove the checkpoints of an unfinished training")
    if local:
        parser.add_argument("--local", action="store_true", help=LOCAL_HELP)
    arguments = parser.parse_args()
    if getattr(arguments, "local", False):
        work_locally()
    params = load_params(PARAMS)
    return Start(getattr(arguments, "task", ""), getattr(arguments, "fresh", False), params, Layout(params.recipe))


def data_root(start: Start, other: str | None) -> Path:
    """The dataset that a stage reads: `other`, which the parameters name, or what `prepare` made."""
    return Path(other) if other else Prepared.open(start.layout.data(start.task)).root
