"""Measure a trained model on its test set: runs/<recipe>/evaluate/<task>/."""

from pipelines.datasets.prepared import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.headlines import write_headline
from pipelines.running.process import stage_main
from pipelines.trained import headlines_of, record_results
from pipelines.training.instruction_sets import use_instruction_sets
from stages.common import begin, data_root
from tcformer.tasks import ALL_TASKS


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, tuple(ALL_TASKS), local=True)
    use_instruction_sets(start.params.instruction_sets)
    task, params, layout = start.task, start.params, start.layout
    weights, out = layout.weights(task), layout.run("evaluate", task)
    other = params.active.evaluation_of(task).data_root
    root = data_root(start, other)
    metrics = evaluate(task, weights, root, params, out)
    write_headline(layout.headline(f"evaluate-{task}"), ALL_TASKS[task].headline(metrics))
    files = [out / f"{name}.json" for name in ("metrics", "keypoints", "tokens")]
    data = None if other else Prepared.open(layout.data(task))
    headlines = headlines_of(task, metrics)
    record_results(weights, f"evaluate@{task}", params, metrics, files, headlines=headlines, data=data)


if __name__ == "__main__":
    stage_main(main)
