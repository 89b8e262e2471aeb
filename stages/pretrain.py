"""Train the classifier whose backbone every fine-tuning starts from: runs/<recipe>/pretrain/."""

from pipelines.process import stage_main
from stages.common import begin, train
from tcformer.tasks import PRETRAINING


def main() -> None:
    """Run the stage."""
    train(begin(__doc__, fresh=True, local=True), PRETRAINING)


if __name__ == "__main__":
    stage_main(main)
