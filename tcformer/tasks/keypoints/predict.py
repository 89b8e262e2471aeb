"""Keypoints of the user's own, in any picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.data.keypoints.points import numbered_points, points_from_json
from tcformer.draw import Example
from tcformer.draw.skeleton import skeleton_painter
from tcformer.inference.base import DIGITS, PIXEL_DIGITS, HeatMapPredictor, Result, Settings, rounded
from tcformer.metrics.wholebody_results import instance_score
from tcformer.models import Network
from tcformer.tasks.drawing import View

#: That of mmpose, and of `evaluate.keypoints.options`.
_COUNTED_SCORE: Final = 0.2


class KeypointsPredictor(HeatMapPredictor):
    """See `tcformer.inference.TaskPredictor`. The weights file describes the points."""

    shows = "keypoints"

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, trained, settings)
        options = model.config["options"]
        described = options["points"]
        self.points = numbered_points(options["num_keypoints"]) if described is None else points_from_json(described)
        self.detects_people = self.points.category == "person"
        self._painter = skeleton_painter(self.points.skeleton, self.points.sides)
        if settings.flip_test:
            self.flip = self.points.mirrored()

    def records(self, result: Result) -> list[dict[str, Any]]:
        """Records in COCO's result format, with the names of the points and the box; image_id is added later."""
        triplets = np.concatenate([result.points, result.scores[..., None]], 2)
        totals = instance_score(result.scores, result.boxes.scores, _COUNTED_SCORE)
        return [
            {
                "category_id": 1,
                "category": self.points.category,
                "annotation_id": int(result.boxes.ids[row]),
                "names": list(self.points.names),
                "keypoints": rounded(triplets[row].ravel(), 3),
                "score": round(float(totals[row]), DIGITS),
                "box": rounded(result.boxes.xywh[row], PIXEL_DIGITS),
            }
            for row in range(len(result))
        ]

    def draw(self, view: View, result: Result, threshold: float) -> NDArray[np.uint8]:
        """See `tcformer.inference.TaskPredictor.draw`."""
        points = np.concatenate([view.place(result.points), result.scores[..., None]], 2)
        return self._painter(view.pixels, points, scale=1, threshold=threshold)

    def example(self, result: Result, row: int) -> Example:
        """See `tcformer.inference.TaskPredictor.example`."""
        return Example(result.crops[row], result.tokens[row], self.in_crop(result, row), painter=self._painter)


PREDICTOR = KeypointsPredictor
