"""Train the classifier whose backbone every fine-tuning starts from: runs/<recipe>/pretrain/."""

from pipelines.driver.run import train_task
from pipelines.process import stage_main
from stages.common import begin
from tcformer.tasks import PRETRAINING


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, fresh=True, local=True)
    train_task(PRETRAINING, start.params, start.fresh)


if __name__ == "__main__":
    stage_main(main)
