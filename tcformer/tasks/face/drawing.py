"""A face's predicted landmarks over the annotated ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tcformer import draw as pictures
from tcformer.draw import Partition
from tcformer.tasks.drawing import Drawn, draw_points
from tcformer.tasks.face.task import FaceTask


def draw(task: FaceTask, sample: dict[str, Any], output: Tensor, partitions: list[Partition], scale: int) -> Drawn:
    """See `tcformer.tasks.registry.TaskEntry.draw`."""
    return draw_points(task.codec, sample, output, partitions, f"face {sample['index']}", pictures.face_mask)
