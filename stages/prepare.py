"""Make a task's dataset, or bring the official one to its layout and check it: data/<recipe>/<task>/.

With --check nothing is written: a table shows which files are present, ready to be unpacked, missing or wrong; without
a task, those of all tasks. The exit status is 0 if prepare would succeed, else 1.
"""

import argparse

from pipelines.datasets.downloads import report_checks
from pipelines.datasets.prepare import prepare
from pipelines.layout import PARAMS, Layout
from pipelines.params import load_params
from pipelines.running.process import LOCAL_HELP, stage_main, work_locally
from tcformer.tasks import ALL_TASKS


def main() -> int:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=tuple(ALL_TASKS), nargs="?")
    parser.add_argument("--check", action="store_true", help="only report what is present, missing or wrong")
    parser.add_argument("--local", action="store_true", help=LOCAL_HELP)
    arguments = parser.parse_args()
    if arguments.local:
        work_locally()
    if not arguments.task and not arguments.check:
        parser.error("expected a task; only --check works without one")
    params = load_params(PARAMS)
    if arguments.check:
        return 0 if report_checks([arguments.task] if arguments.task else params.active.tasks, params) else 1
    prepare(arguments.task, params, Layout(params.recipe).data(arguments.task))
    return 0


if __name__ == "__main__":
    stage_main(main)
