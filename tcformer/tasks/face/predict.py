"""Landmarks of faces in any picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer import draw as pictures
from tcformer.data.face.landmarks import FLIP, NUM_LANDMARKS
from tcformer.draw import Example
from tcformer.errors import UserError
from tcformer.inference.base import DIGITS, PIXEL_DIGITS, HeatMapPredictor, Result, Settings, rounded
from tcformer.models import Network
from tcformer.tasks.drawing import View


class FacePredictor(HeatMapPredictor):
    """See `tcformer.inference.TaskPredictor`. The boxes are those around the landmarks."""

    shows = "face landmarks"
    default_size = (256, 256)
    default_sigma = 1.5
    flip = FLIP

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, trained, settings)
        if (count := model.config["options"]["num_keypoints"]) != NUM_LANDMARKS:
            raise UserError(f"the network predicts {count} landmarks; expected WFLW's 98; give other weights")

    def records(self, result: Result) -> list[dict[str, Any]]:
        """A record for each face: its number in the list of faces ("index"), box, points and scores."""
        columns = (result.boxes.ids.tolist(), rounded(result.boxes.xywh, PIXEL_DIGITS))
        values = (rounded(result.points, 3), rounded(result.scores, DIGITS))
        return [dict(zip(("index", "box", "points", "scores"), row)) for row in zip(*columns, *values)]

    def draw(self, view: View, result: Result, threshold: float) -> NDArray[np.uint8]:
        """See `tcformer.inference.TaskPredictor.draw`."""
        points = np.concatenate([view.place(result.points), result.scores[..., None]], 2)
        return pictures.landmarks(view.pixels, points, scale=1, threshold=threshold)

    def example(self, result: Result, row: int) -> Example:
        """See `tcformer.inference.TaskPredictor.example`."""
        return Example(result.crops[row], result.tokens[row], self.in_crop(result, row))


PREDICTOR = FacePredictor
