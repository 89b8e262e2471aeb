"""Train a task from the pretrained backbone: runs/<recipe>/finetune/<task>/."""

from pipelines.process import stage_main
from stages.common import begin, train
from tcformer.tasks import FINETUNED


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, FINETUNED, fresh=True, local=True)
    train(start, start.task)


if __name__ == "__main__":
    stage_main(main)
