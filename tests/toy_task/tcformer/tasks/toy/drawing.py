"""The predicted points over the true ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from tcformer.tasks.toy.task import ToyTask
from torch import Tensor

from tcformer.data.images import denormalise
from tcformer.draw import Example, Partition
from tcformer.tasks.drawing import Drawn


def draw(task: ToyTask, sample: dict[str, Any], output: Tensor, partitions: list[Partition], scale: int) -> Drawn:
    """See `tcformer.tasks.registry.TaskEntry.draw`."""
    image = denormalise(sample["image"])
    (x, y), (edge, _) = sample["points"]
    rows, columns = np.mgrid[:64, :64]
    picture = np.kron(image, np.ones((scale, scale, 1), np.uint8))
    example = Example(image, partitions, drawn=picture, label=f"disc {sample['index']}")
    return Drawn(example, (rows - y) ** 2 + (columns - x) ** 2 <= (edge - x) ** 2)
