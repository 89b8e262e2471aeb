"""What the drawings of several tasks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tcformer.data.images import denormalise
from tcformer.draw import Example, Partition
from tcformer.heatmaps import Codec


class Drawn(NamedTuple):
    """A sample and its prediction, to be put on a sheet.

    Attributes:
        example: crop, tokens and prediction.
        mask: (H, W), where in the crop the person or face is.
    """

    example: Example
    mask: NDArray[np.bool_]


def draw_points(
    codec: Codec,
    sample: dict[str, Any],
    heat_maps: Tensor,
    partitions: list[Partition],
    label: str,
    mask_of: Callable[[NDArray[Any], tuple[int, int]], NDArray[np.bool_]],
    complete: Callable[[NDArray[Any]], NDArray[Any]] = lambda points: points,
) -> Drawn:
    """Predicted points over the annotated ones.

    Args:
        codec: of the task.
        sample: of the task's dataset, with "image", "points" and "weights".
        heat_maps: (1, K, h, w), predicted for the sample.
        partitions: the regions of the tokens of each stage.
        label: below the crop.
        mask_of: from annotated points (K, 3) and (height, width) to where the person or face is.
        complete: from the predicted points (K, 3) to all that are drawn.
    """
    size = sample["image"].shape[1:]
    points, scores = codec.decode(heat_maps)
    found = np.concatenate([points[0].numpy(), scores[0].numpy()[:, None]], 1)
    truth = np.concatenate([sample["points"], sample["weights"][:, None]], 1)
    example = Example(denormalise(sample["image"]), partitions, complete(found), truth, label)
    return Drawn(example, mask_of(truth, size))
