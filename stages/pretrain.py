"""Train the classifier whose backbone every fine-tuning starts from: runs/<recipe>/pretrain/."""

from pathlib import Path

from pipelines.datasets.prepared import Prepared
from pipelines.driver.run import Plan, options_of, run
from pipelines.process import stage_main
from stages.common import begin


def main() -> None:
    """Run the stage."""
    arguments, params, layout = begin(__doc__, (), ("--fresh", "forget the checkpoints of an unfinished training"))
    section = params.active.pretrain
    data = Prepared.open(layout.data("imagenet"))
    initial = Path(section.initial) if section.initial else None
    plan = Plan("pretrain", "imagenet", options_of(params.active, section), section.training, data, initial)
    run(plan, params, layout.run("pretrain"), arguments.fresh)


if __name__ == "__main__":
    stage_main(main)
