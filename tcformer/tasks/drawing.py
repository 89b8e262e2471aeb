"""What the drawings of several tasks share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tcformer.data.batch import collate
from tcformer.data.images import denormalise, read_image
from tcformer.draw import Example, Partition
from tcformer.heatmaps import Codec
from tcformer.models import Tokens
from tcformer.tasks.base import Batch, Dataset


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


@contextmanager
def first_output(module: nn.Module) -> Iterator[list[Tokens | Tensor]]:
    """Collect what a backbone returns in its first call while the body runs."""
    collected: list[Tokens | Tensor] = []

    def collect(module: nn.Module, inputs: object, output: list[Tokens | Tensor]) -> None:
        if not collected:
            collected.extend(output)

    hook = module.register_forward_hook(collect)
    try:
        yield collected
    finally:
        hook.remove()


def partitions_of(stages: Sequence[Tokens | Tensor], images: Tensor, row: int = 0) -> list[Partition]:
    """The regions of the tokens of each stage, or of a map's pixels where the backbone has no tokens.

    Args:
        stages: outputs of the backbone.
        images: (B, 3, H, W), its input.
        row: index of the image in the batch.
    """
    grid = math.ceil(images.shape[2] / 4), math.ceil(images.shape[3] / 4)
    found = []
    for stage in stages:
        if isinstance(stage, Tokens) and stage.grid_size == grid:
            found.append(Partition(stage.token_of_cell[row].cpu().numpy(), grid))
        else:
            size = stage.map_size if isinstance(stage, Tokens) else (stage.shape[2], stage.shape[3])
            found.append(Partition.regular(size, grid))
    return found


@dataclass(frozen=True)
class Scene:
    """A picture, and the samples that are crops of it.

    Attributes:
        image: the file.
        samples: their indices in the dataset.
        box: x, y, width, height of the part that is drawn, pixels; None: the whole picture.
    """

    image: Path
    samples: tuple[int, ...]
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class SceneSet:
    """The pictures of a dataset.

    Attributes:
        name: what it is called below a figure.
        dataset: of the crops.
        scenes: the pictures.
        coloured_by_side: whether what is drawn has other colours on a person's left side than on the right.
    """

    name: str
    dataset: Dataset
    scenes: Sequence[Scene]
    coloured_by_side: bool

    def batch(self, scene: Scene) -> Batch:
        """The samples of a picture as a batch."""
        return collate([self.dataset.sample(index, None) for index in scene.samples])


@dataclass(frozen=True)
class View:
    """A part of a picture, and afterwards at another size.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        corner: x, y of its first pixel in the picture.
        factor: its pixels for a pixel of the picture.
    """

    pixels: NDArray[np.uint8]
    corner: tuple[int, int] = (0, 0)
    factor: float = 1.0

    @classmethod
    def of(cls, scene: Scene) -> View:
        """Read the part of a picture that is drawn."""
        image = read_image(scene.image)
        if scene.box is None:
            return cls(image)
        left, top = max(0, math.floor(scene.box[0])), max(0, math.floor(scene.box[1]))
        right, bottom = math.ceil(scene.box[0] + scene.box[2]), math.ceil(scene.box[1] + scene.box[3])
        return cls(image[top : max(bottom, top + 1), left : max(right, left + 1)], (left, top))

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.pixels.shape[1] / self.pixels.shape[0]

    def resized(self, width: int, height: int) -> View:
        """The same at another size, with about the same aspect."""
        factor = height / self.pixels.shape[0]
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(self.pixels, (width, height), interpolation=kind), np.uint8)
        return View(pixels, self.corner, self.factor * factor)

    def place(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (..., 2 or more) with x and y converted from pixels of the picture to those of this view."""
        placed = np.array(points, np.float64)
        placed[..., :2] = (placed[..., :2] - self.corner + 0.5) * self.factor - 0.5
        return placed
