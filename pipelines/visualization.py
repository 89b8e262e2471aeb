"""What a trained network sees: the tokens of its stages and what it predicts, for samples of the validation set."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.evaluation import trained_task
from pipelines.params import Drawing
from tcformer import Tokens
from tcformer import draw as pictures
from tcformer.draw import Partition
from tcformer.models import load_model
from tcformer.tasks import TASKS


def draw_examples(
    task: str, weights: Path, data_root: Path, drawing: Drawing, out: Path
) -> dict[str, dict[str, float]]:
    """Draw tokens and predictions for samples evenly spread over the validation set, into `out`.

    Args:
        task: name of the task.
        weights: file that a training of the task wrote.
        data_root: folder of a dataset in the task's official layout.
        drawing: how many, and how.
        out: folder of the pictures.

    Returns:
        Mean number of grid cells a token of each stage covers on the persons and around them.
    """
    problem = trained_task(task, weights).build(data_root)
    data = problem.val_set()
    model = load_model(weights).eval()
    indices = np.linspace(0, len(data) - 1, min(drawing.persons, len(data))).astype(int)
    examples, density = [], []
    with torch.inference_mode():
        for index in indices.tolist():
            sample = data.sample(index, None)
            images = torch.from_numpy(sample["image"])[None]
            partitions = [_partition(stage, images) for stage in model.backbone(images)]
            example, mask = TASKS[task].draw(problem, sample, model(images), partitions, drawing.scale)
            examples.append(example)
            if mask.any() and not mask.all():
                density.append([pictures.cells_per_token(p.token_of_cell, p.grid_size, mask) for p in partitions])
    out.mkdir(parents=True, exist_ok=True)
    sheet = pictures.token_sheet(examples, scale=drawing.scale, threshold=drawing.keypoint_threshold)
    pictures.write_png(out / "tokens.png", sheet)
    means = np.mean(density, axis=0).tolist() if density else []  # nothing to measure where people fill every crop
    return {
        f"stage{stage + 1}": {"cells_per_token_on_person": on, "cells_per_token_around": around}
        for stage, (on, around) in enumerate(means)
    }


def _partition(stage: Tokens | Tensor, images: Tensor) -> Partition:
    """The regions of a stage's tokens, or of a map's pixels where the backbone has no tokens."""
    grid = math.ceil(images.shape[2] / 4), math.ceil(images.shape[3] / 4)
    if isinstance(stage, Tokens) and stage.grid_size == grid:
        return Partition(stage.token_of_cell[0].numpy(), grid)
    size = stage.map_size if isinstance(stage, Tokens) else (stage.shape[2], stage.shape[3])
    return Partition.regular(size, grid)
