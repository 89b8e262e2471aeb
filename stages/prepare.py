"""Make a task's data set, or bring the official one to its layout and check it: data/<recipe>/<task>/.

With --check nothing is written: a table tells what is there, ready to be unpacked, missing or wrong; without a task, of
all tasks. The exit status is 0 if prepare would succeed, else 1.
"""

import argparse
from typing import Any

from pipelines.datasets.catalogue import Source, mesh_sources
from pipelines.datasets.downloads import check
from pipelines.datasets.prepared import prepare
from pipelines.layout import PARAMS, Layout
from pipelines.params import load_params
from pipelines.process import stage_main
from tcformer.tasks import TASKS


def main() -> int:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tuple(TASKS), nargs="?")
    parser.add_argument("--check", action="store_true", help="only tell what is there, missing or wrong")
    arguments = parser.parse_args()
    if not arguments.task and not arguments.check:
        parser.error("a task is needed; only --check goes without")
    params = load_params(PARAMS)
    recipe = params.active
    if arguments.check:
        return show([arguments.task] if arguments.task else list(TASKS), recipe)
    section = getattr(recipe.data, arguments.task)
    out = Layout(params.recipe).data(arguments.task)
    prepare(arguments.task, section, params.cluster, out, sources(arguments.task, recipe))
    return 0


def sources(task: str, recipe: Any) -> list[Source]:
    """What the parameters name below the task's data root."""
    return mesh_sources(recipe, PARAMS) if task == "mesh" else []


def show(tasks: list[str], recipe: Any) -> int:
    """Print the table of the tasks, and what is to be said at length; 1 if anything is missing or wrong, else 0."""
    rows = [(task, row) for task in tasks for row in check(task, getattr(recipe.data, task), sources(task, recipe))]
    width = max(len(row.what) for _, row in rows)
    for task, row in rows:
        note = "see below" if "\n" in row.note else row.note
        print(f"{task:9}  {row.state:7}  {row.what:{width}}  {note}".rstrip())
    for _, row in rows:
        if "\n" in row.note:
            print(f"\n{row.note}")
    return 0 if all(row.good for _, row in rows) else 1


if __name__ == "__main__":
    stage_main(main)
