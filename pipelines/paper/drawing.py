"""Draw the paper's figures with trained networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.datasets.prepared import Prepared
from pipelines.layout import Layout
from pipelines.paper.experiments import Experiment
from pipelines.paper.figures import Figure, Shown
from pipelines.params import Params
from pipelines.trained import trained_task
from pipelines.visualization.examples import choose, examples_of
from tcformer import draw as pictures
from tcformer.draw import Example, GalleryBlock, Partition
from tcformer.errors import UserError
from tcformer.models import load_model
from tcformer.tasks import TASKS
from tcformer.tasks.drawing import SceneSet, View

_PAGE_WIDTH = 1800  # of a page of scenes, pixels
_ROW_HEIGHT = 400  # about that of its rows, pixels


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a figure is drawn with.

    Attributes:
        experiments: those of the figure by the name that the figure gives them.
        weights: their weights.
        params: of the recipe whose data is drawn.
        layout: the folders of that recipe.
        chosen: indices of the samples or pictures that are drawn; (): evenly spread ones.
        report: shows a line to the user.
    """

    experiments: Mapping[str, Experiment]
    weights: Mapping[str, Path]
    params: Params
    layout: Layout
    chosen: Sequence[int] = ()
    report: Callable[[str], None] = print

    def task(self, shown: Shown) -> str:
        """The task of a network."""
        return self.experiments[str(shown.experiment)].task

    def data_root(self, task: str) -> Path:
        """The dataset whose samples are drawn: as for the stage `visualize`, or the official one if it is not prepared.

        Raises:
            UserError: there is none.
        """
        recipe, folder = self.params.active, self.layout.data(task)
        if named := recipe.drawing_of(task).data_root:
            return Path(named)
        if (official := recipe.data_of(task).root) and not folder.exists():  # DVC prepared it in its queue's copy
            return Path(official).expanduser()
        return Prepared.open(folder).root

    def examples(self, shown: Shown, count: int) -> list[Example]:
        """Samples of the validation set with a network's tokens."""
        task = self.task(shown)
        drawing = self.params.active.drawing_of(task).model_copy(update={"samples": count})
        weights = self.weights[str(shown.experiment)]
        return [drawn.example for drawn in examples_of(task, weights, self.data_root(task), drawing, self.chosen)]


def draw_figure(figure: Figure, trained: Trained) -> NDArray[np.uint8]:
    """Draw a figure.

    Raises:
        UserError: a dataset is missing, or a chosen sample does not exist.
    """
    draw = {"networks": _networks, "tasks": _tasks, "scenes": _scenes, "stage": _stage}[figure.kind]
    return draw(figure, trained)


def _networks(figure: Figure, trained: Trained) -> NDArray[np.uint8]:
    """The tokens of several networks for the same samples."""
    examples = {s.label: trained.examples(s, figure.count) for s in figure.networks if s.experiment}
    some = next(iter(examples.values()))
    grids = [dataclasses.replace(example, partitions=_fixed_grid(example)) for example in some]
    task = trained.task(next(s for s in figure.networks if s.experiment))
    return pictures.comparison_sheet(
        {s.label: examples.get(s.label, grids) for s in figure.networks},
        stages=figure.stages,
        in_rows=figure.in_rows,
        scale=trained.params.active.drawing_of(task).scale,
    )


def _stage(figure: Figure, trained: Trained) -> NDArray[np.uint8]:
    """What the stage `visualize` draws."""
    [shown] = figure.networks
    drawing = trained.params.active.drawing_of(trained.task(shown))
    examples = trained.examples(shown, drawing.samples)
    return pictures.token_sheet(examples, scale=drawing.scale, threshold=drawing.keypoint_threshold)


def _fixed_grid(example: Example) -> list[Partition]:
    """The tokens that a fixed grid has at each stage: each half as many along a side as at the stage before."""
    grid = example.partitions[0].grid_size
    sizes = [(math.ceil(grid[0] / 2**stage), math.ceil(grid[1] / 2**stage)) for stage in range(len(example.partitions))]
    return [Partition.regular(size, grid) for size in sizes]


def _tasks(figure: Figure, trained: Trained) -> NDArray[np.uint8]:
    """For each task a row of samples, each beside its tokens."""
    rows, labels = [], []
    for shown in figure.networks:
        task, row = trained.task(shown), []
        scale = trained.params.active.drawing_of(task).scale
        for example in trained.examples(shown, figure.count):
            row.append(pictures.enlarge(example.image, scale))
            for stage in figure.stages:
                part = example.partitions[stage]
                row.append(pictures.tokens(example.image, part.token_of_cell, part.grid_size, scale=scale))
        rows.append(row)
        labels.append(TASKS[task].part("report").TITLE)
    stages = ", ".join(str(stage + 1) for stage in figure.stages)
    blocks = [GalleryBlock(label, f"pictures and tokens of stage {stages}", [row]) for label, row in zip(labels, rows)]
    return pictures.gallery(blocks)


@torch.inference_mode()
def _scenes(figure: Figure, trained: Trained) -> NDArray[np.uint8]:
    """Predictions on whole pictures, a block for each network and set of pictures."""
    blocks, missing = [], []
    for shown in figure.networks:
        task, weights = trained.task(shown), trained.weights[str(shown.experiment)]
        options = trained.params.active.evaluation_options_of(task)
        problem = trained_task(task, weights).build(trained.data_root(task), options)
        model = load_model(weights).eval()
        drawing, part = trained.params.active.drawing_of(task), TASKS[task].part("scenes")
        for name in shown.sets:
            try:
                scenes: SceneSet = part.scene_set(problem, name)
            except UserError as error:
                missing.append(str(error))
                continue
            numbers = _choose(scenes, figure.count, trained.chosen)
            chosen = [scenes.scenes[number] for number in numbers]
            trained.report(f"{task}: " + ", ".join(f"{n}: {s.image.name}" for n, s in zip(numbers, chosen)))
            views = [View.of(scene) for scene in chosen]
            sizes = pictures.row_sizes([view.aspect for view in views], _PAGE_WIDTH, _ROW_HEIGHT)
            pending = iter(zip(chosen, views))
            rows = [
                [
                    part.draw_scene(problem, model, scenes, scene, view.resized(*size), drawing.keypoint_threshold)
                    for size, (scene, view) in zip(row, pending)
                ]
                for row in sizes
            ]
            title = TASKS[task].part("report").TITLE
            blocks.append(GalleryBlock(title, scenes.name, rows, _side_legend if scenes.coloured_by_side else None))
    if not blocks:
        raise UserError("\n".join(missing))
    for message in missing:
        trained.report(f"left out: {message}")
    return pictures.gallery(blocks)


def _side_legend(width: int, text_size: int) -> NDArray[np.uint8]:
    return pictures.side_legend(width, text_size=text_size)


def _choose(scenes: SceneSet, count: int, chosen: Sequence[int]) -> list[int]:
    """Indices of pictures: the chosen ones, or evenly spread ones, of those with several people if there are enough."""
    several = [number for number, scene in enumerate(scenes.scenes) if len(scene.samples) > 1]
    if chosen or len(several) < count:
        return choose(len(scenes.scenes), count, chosen)
    return [several[place] for place in choose(len(several), count)]
