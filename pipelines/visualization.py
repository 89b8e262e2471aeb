"""What a trained network sees: the tokens of its stages and what it predicts, for samples of the validation set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from pipelines.params import Drawing
from pipelines.trained import trained_task
from tcformer import draw as pictures
from tcformer.errors import UserError
from tcformer.models import load_model
from tcformer.tasks import TASKS
from tcformer.tasks.drawing import Drawn, partitions_of


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
        Mean number of grid cells a token of each stage covers on what is looked for and around it; nothing for a task
        whose datasets do not mark it.
    """
    examples, density = [], []
    for example, mask in examples_of(task, weights, data_root, drawing):
        examples.append(example)
        if mask.any() and not mask.all():
            density.append([pictures.cells_per_token(p.token_of_cell, p.grid_size, mask) for p in example.partitions])
    out.mkdir(parents=True, exist_ok=True)
    sheet = pictures.token_sheet(examples, scale=drawing.scale, threshold=drawing.keypoint_threshold)
    pictures.write_png(out / "tokens.png", sheet)
    means = np.mean(density, axis=0).tolist() if density else []  # nothing to measure where people fill every crop
    return {
        f"stage{stage + 1}": {"cells_per_token_on_person": on, "cells_per_token_around": around}
        for stage, (on, around) in enumerate(means)
    }


def examples_of(
    task: str, weights: Path, data_root: Path, drawing: Drawing, chosen: Sequence[int] = ()
) -> Iterator[Drawn]:
    """Samples of the validation set with their tokens and predictions, to be put on a sheet.

    Args:
        task: see `draw_examples`.
        weights: see `draw_examples`.
        data_root: see `draw_examples`.
        drawing: how many, and how.
        chosen: indices of samples; (): `drawing.samples` evenly spread ones.

    Raises:
        UserError: a chosen sample does not exist.
    """
    problem = trained_task(task, weights).build(data_root)
    data = problem.val_set()
    model = load_model(weights).eval()
    for index in choose(len(data), drawing.samples, chosen):
        sample = data.sample(index, None)
        images = torch.from_numpy(sample["image"])[None]
        with torch.inference_mode():
            partitions = partitions_of(model.backbone(images), images)
            drawn = TASKS[task].draw(problem, sample, model(images), partitions, drawing.scale)
        yield drawn


def choose(length: int, count: int, chosen: Sequence[int] = ()) -> list[int]:
    """The chosen indices, or else at most `count` evenly spread ones from 0 to `length` - 1.

    Raises:
        UserError: a chosen index does not exist.
    """
    if wrong := [index for index in chosen if not 0 <= index < length]:
        raise UserError(f"picture {wrong[0]}: expected a number from 0 to {length - 1}; choose another")
    indices: list[int] = np.linspace(0, length - 1, min(count, length)).astype(int).tolist()
    return list(chosen) or indices
