"""Draw the tokens and predictions of a trained model: runs/<recipe>/visualize/<task>/."""

import json
from pathlib import Path

from pipelines.datasets.prepared import Prepared
from pipelines.evaluation import read_weights_metadata, record
from pipelines.process import stage_main
from pipelines.training.loop import WEIGHTS
from pipelines.visualization import draw_examples
from stages.common import FINETUNED, begin


def main() -> None:
    """Run the stage."""
    arguments, params, layout = begin(__doc__, FINETUNED)
    task = arguments.task
    section = getattr(params.active.visualize, task)
    weights = layout.run("finetune", task) / WEIGHTS
    root = Path(section.data_root) if section.data_root else Prepared.open(layout.data(task)).root
    options = json.loads(read_weights_metadata(weights)["options"])
    out = layout.run("visualize", task)
    figures = draw_examples(task, weights, options, root, section, out)
    (out.parent / f"{task}.json").write_text(json.dumps(figures, indent=1))
    record(weights, f"visualize@{task}", params, figures, sorted(out.iterdir()))


if __name__ == "__main__":
    stage_main(main)
