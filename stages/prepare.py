"""Make or check a task's data set: data/<recipe>/<task>/."""

from pipelines.data import prepare
from pipelines.process import stage_main
from stages.common import begin
from tcformer.tasks import TASKS


def main() -> None:
    """Run the stage."""
    arguments, params, layout = begin(__doc__, tuple(TASKS))
    section = getattr(params.active.data, arguments.task)
    prepare(arguments.task, section, params.cluster, layout.data(arguments.task))


if __name__ == "__main__":
    stage_main(main)
