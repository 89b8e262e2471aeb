"""Measure a trained model on its test set: runs/<recipe>/evaluate/<task>/."""

from pipelines.evaluation import evaluate
from pipelines.process import stage_main
from pipelines.trained import record_results
from pipelines.training.instruction_sets import use_instruction_sets
from stages.common import begin, data_root
from tcformer.tasks import TASKS


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, tuple(TASKS), local=True)
    use_instruction_sets(start.params.instruction_sets)
    task, params, layout = start.task, start.params, start.layout
    weights, out = layout.weights(task), layout.run("evaluate", task)
    root = data_root(start, params.active.evaluation_of(task).data_root)
    metrics = evaluate(task, weights, root, params, out)
    files = [out / f"{name}.json" for name in ("metrics", "keypoints", "tokens")]
    record_results(weights, f"evaluate@{task}", params, metrics, files)


if __name__ == "__main__":
    stage_main(main)
