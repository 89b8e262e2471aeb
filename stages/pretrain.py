"""Train the classifier whose backbone every fine-tuning starts from: runs/<recipe>/pretrain/."""

from pipelines.driver.run import train_task
from pipelines.running.process import stage_main
from pipelines.training.instruction_sets import use_instruction_sets
from stages.common import begin
from tcformer.tasks import PRETRAINING


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, fresh=True, local=True)
    use_instruction_sets(start.params.instruction_sets)
    train_task(PRETRAINING, start.params, start.fresh)


if __name__ == "__main__":
    stage_main(main)
