"""Draw the tokens and predictions of a trained model: runs/<recipe>/visualize/<task>/."""

import json

from pipelines.running.process import stage_main
from pipelines.trained import record_results
from pipelines.training.instruction_sets import use_instruction_sets
from pipelines.visualization.examples import draw_examples
from stages.common import begin, data_root
from tcformer.tasks import ALL_TASKS


def main() -> None:
    """Run the stage."""
    start = begin(__doc__, tuple(ALL_TASKS))
    use_instruction_sets(start.params.instruction_sets)
    task, params, layout = start.task, start.params, start.layout
    drawing = params.active.drawing_of(task)
    weights, out = layout.weights(task), layout.run("visualize", task)
    figures = draw_examples(task, weights, data_root(start, drawing.data_root), drawing, out)
    (out.parent / f"{task}.json").write_text(json.dumps(figures, indent=1))
    record_results(weights, f"visualize@{task}", params, figures, sorted(out.iterdir()))


if __name__ == "__main__":
    stage_main(main)
