"""What a trained network sees: the tokens of its stages and what it predicts, for samples of the validation set."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipelines.params import Drawing
from pipelines.trained import trained_task
from pipelines.visualization.token_inspection import inspected, recorded_merges
from tcformer import draw as pictures
from tcformer.data.batch import collate, evenly_spread
from tcformer.errors import UserError
from tcformer.models import load_model
from tcformer.models.heads import MeshPrediction
from tcformer.tasks import ALL_TASKS
from tcformer.tasks.drawing import Drawn, first_output, partitions_of

_MOST_SCORED = 256  # pictures among which the best and the worst are sought
_SCORED_AT_ONCE = 16
_EXTREMES = 3  # the best, and as many of the worst
_Output = TypeVar("_Output", Tensor, MeshPrediction)


def draw_examples(
    task: str, weights: Path, data_root: Path, drawing: Drawing, out: Path
) -> dict[str, dict[str, float]]:
    """Draw tokens and predictions for samples of the validation set, into `out`.

    Writes `tokens.png` (samples evenly spread over the set), `extremes.png` (the best and the worst of up to 256, by
    the measure of the task's validation) and `inspector.json` (the tokens of the former, for the report's inspector).

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
    viewer = _Viewer(task, weights, data_root, drawing.scale)
    examples, density, inspector = [], [], []
    for index in choose(len(viewer), drawing.samples):
        with recorded_merges(viewer.model.backbone) as merges:
            example, mask = viewer.draw(index)
        examples.append(example)
        inspector.append(inspected(example, merges))
        if mask.any() and not mask.all():
            density.append([pictures.cells_per_token(p.token_of_cell, p.grid_size, mask) for p in example.partitions])
    out.mkdir(parents=True, exist_ok=True)
    style: dict[str, Any] = {"scale": drawing.scale, "threshold": drawing.keypoint_threshold}
    pictures.write_png(out / "tokens.png", pictures.token_sheet(examples, **style))
    (out / "inspector.json").write_text(json.dumps({"pictures": inspector}), encoding="utf-8")
    if extremes := _extremes(viewer):
        pictures.write_png(out / "extremes.png", pictures.token_sheet(extremes, **style))
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
    viewer = _Viewer(task, weights, data_root, drawing.scale)
    for index in choose(len(viewer), drawing.samples, chosen):
        yield viewer.draw(index)


class _Viewer:
    """A trained network and its validation set, on the CPU.

    Args:
        task: see `draw_examples`.
        weights: see `draw_examples`.
        data_root: see `draw_examples`.
        scale: drawn pixels for a pixel of the network's input.

    Attributes:
        model: the network.
        measure: the measure by which pictures are ordered.
    """

    def __init__(self, task: str, weights: Path, data_root: Path, scale: int) -> None:
        self._entry, self._scale = ALL_TASKS[task], scale
        self._task = trained_task(task, weights).build(data_root)
        self._data = self._task.val_set()
        self.model = load_model(weights).eval()
        self.measure = self._task.validation_measure

    def __len__(self) -> int:
        return len(self._data)

    @torch.inference_mode()
    def draw(self, index: int) -> Drawn:
        """A sample with its tokens and prediction."""
        sample = self._data.sample(index, None)
        images = torch.from_numpy(sample["image"])[None]
        with first_output(self.model.backbone) as stages:
            prediction = self.model(images)
        if not stages:  # timm's classifiers pool without the maps
            stages = self.model.backbone(images)
        return self._entry.draw(self._task, sample, prediction, partitions_of(stages, images), self._scale)

    @torch.inference_mode()
    def scores(self, indices: Sequence[int]) -> dict[int, tuple[float, float]]:
        """The measure and the loss of each of the samples, by their indices."""
        found = {}
        for start in range(0, len(indices), _SCORED_AT_ONCE):
            chunk = indices[start : start + _SCORED_AT_ONCE]
            samples = [collate([self._data.sample(index, None)]) for index in chunk]
            outputs = self.model(torch.cat([sample["image"] for sample in samples]))
            for row, (index, sample) in enumerate(zip(chunk, samples)):
                sums = self._task.validate(partial(_row, outputs, row), sample)
                found[index] = (float(sums[f"{self.measure.name}_sum"]), float(sums["loss_sum"]))
        return found


def _row(outputs: _Output, row: int, images: Tensor) -> _Output:
    """A network's output for one image of a batch. It has the interface of a network, whose input it ignores.

    Args:
        outputs: of the network for the batch.
        row: index of the image in the batch.
        images: not used.
    """
    if isinstance(outputs, Tensor):
        return outputs[row : row + 1]
    return type(outputs)(*(part[row : row + 1] for part in outputs))


def _extremes(viewer: _Viewer) -> list[pictures.Example]:
    """The best samples and the worst ones, the worst last; of equal measures the loss decides."""
    scores = viewer.scores(evenly_spread(len(viewer), _MOST_SCORED))
    sign = -1 if viewer.measure.higher_is_better else 1
    order = sorted(scores, key=lambda index: (sign * scores[index][0], scores[index][1], index))
    count = min(_EXTREMES, len(order) // 2)
    named = [("best", index) for index in order[:count]]
    named += [("worst", index) for index in order[len(order) - count :]]
    examples = []
    for name, index in named:
        example = viewer.draw(index).example
        label = f"{name}: {viewer.measure.name} {scores[index][0]:.3g}; {example.label}"
        examples.append(dataclasses.replace(example, label=label))
    return examples


def choose(length: int, count: int, chosen: Sequence[int] = ()) -> list[int]:
    """The chosen indices, or else at most `count` evenly spread ones from 0 to `length` - 1.

    Raises:
        UserError: a chosen index does not exist.
    """
    if wrong := [index for index in chosen if not 0 <= index < length]:
        raise UserError(f"picture {wrong[0]}: expected a number from 0 to {length - 1}; choose another")
    return list(chosen) or evenly_spread(length, count)
