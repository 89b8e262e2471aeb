"""Train a task from the pretrained backbone: runs/<recipe>/finetune/<task>/."""

from pipelines.driver.run import train_task
from pipelines.running.process import stage_main
from pipelines.training.instruction_sets import use_instruction_sets
from stages.common import begin
from tcformer.tasks import FINETUNED, OWN_TASKS


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, (*FINETUNED, *OWN_TASKS), fresh=True, local=True)
    use_instruction_sets(start.params.instruction_sets)
    train_task(start.task, start.params, start.fresh)


if __name__ == "__main__":
    stage_main(main)
