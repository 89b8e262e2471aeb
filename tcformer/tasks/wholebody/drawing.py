"""A person's predicted keypoints over the annotated ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tcformer import draw as pictures
from tcformer.draw import Partition
from tcformer.tasks.drawing import Drawn, draw_points
from tcformer.tasks.wholebody.task import WholebodyTask


def draw(task: WholebodyTask, sample: dict[str, Any], output: Tensor, partitions: list[Partition], scale: int) -> Drawn:
    """See `tcformer.tasks.registry.TaskEntry.draw`."""
    label = f"annotation {sample['annotation_id']}"
    return draw_points(task.codec, sample, output, partitions, label, pictures.person_mask, task.complete)
