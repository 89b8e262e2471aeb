"""Predicted keypoints over the annotated ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from tcformer.draw import Partition
from tcformer.draw.canvas import skeleton_mask
from tcformer.draw.skeleton import skeleton_painter
from tcformer.tasks.drawing import Drawn, draw_points
from tcformer.tasks.keypoints.task import KeypointsTask


def draw(task: KeypointsTask, sample: dict[str, Any], output: Tensor, partitions: list[Partition], scale: int) -> Drawn:
    """See `tcformer.tasks.registry.TaskEntry.draw`."""
    label = f"annotation {sample['annotation_id']}"
    drawn = draw_points(
        task.codec, sample, output, partitions, label, partial(skeleton_mask, skeleton=task.points.mask_lines)
    )
    painter = skeleton_painter(task.points.skeleton, task.points.sides)
    return drawn._replace(example=replace(drawn.example, painter=painter))
