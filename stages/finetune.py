"""Train a task from the pretrained backbone: runs/<recipe>/finetune/<task>/."""

from pathlib import Path

from pipelines.datasets.prepared import Prepared
from pipelines.driver.run import Plan, options_of, run
from pipelines.process import stage_main
from pipelines.training.loop import WEIGHTS
from stages.common import FINETUNED, begin


def main() -> None:
    """Run the stage."""
    fresh = ("--fresh", "forget the checkpoints of an unfinished training")
    arguments, params, layout = begin(__doc__, FINETUNED, fresh)
    section = getattr(params.active.finetune, arguments.task)
    data = Prepared.open(layout.data(arguments.task))
    initial = Path(section.initial) if section.initial else layout.run("pretrain") / WEIGHTS
    stage = f"finetune@{arguments.task}"
    plan = Plan(stage, arguments.task, options_of(params.active, section), section.training, data, initial)
    run(plan, params, layout.run("finetune", arguments.task), arguments.fresh)


if __name__ == "__main__":
    stage_main(main)
