"""Whole-body keypoints of people in any picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer import draw as pictures
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS, flip_within, subset
from tcformer.draw import Example
from tcformer.errors import UserError
from tcformer.inference.base import DIGITS, PIXEL_DIGITS, HeatMapPredictor, Result, Settings, rounded
from tcformer.metrics.oks import oks_nms
from tcformer.metrics.wholebody_results import instance_score, make_result
from tcformer.models import Network
from tcformer.tasks.drawing import View

#: Those of mmpose, and of `evaluate.wholebody.options` in both recipes.
_COUNTED_SCORE: Final = 0.2
_OKS_OF_DUPLICATES: Final = 0.9
_LISTS: Final = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


class WholebodyPredictor(HeatMapPredictor):
    """See `tcformer.inference.TaskPredictor`. The paper's networks see 256 x 192 pixels, the large one 384 x 288."""

    shows = "whole-body keypoints"
    detects_people = True
    default_size = (256, 192)

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        if model.config["variant"] == "tcformer_large":
            self.default_size = (384, 288)
        super().__init__(model, trained, settings)
        options = model.config["options"]
        self._points = subset(options["keypoints"])  # (K,) of the 133
        if options["num_keypoints"] != len(self._points):
            raise UserError(
                f"the network predicts {options['num_keypoints']} points, which are not those of COCO-WholeBody; "
                "expected one of 'wholebody' with keypoints all, body, foot, face or hand; give other weights"
            )
        self.flip = flip_within(self._points)

    def triplets(self, points: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (P, K, 2) with scores (P, K) as (P, 133, 3). Points that are not predicted are 0."""
        whole = np.zeros((len(points), NUM_KEYPOINTS, 3))
        whole[:, self._points] = np.concatenate([points, scores[..., None]], 2)
        return whole

    def _results(self, result: Result) -> list[dict[str, Any]]:
        whole = self.triplets(result.points, result.scores)
        totals = instance_score(result.scores, result.boxes.scores, _COUNTED_SCORE)
        return [
            make_result(
                whole[row],
                float(totals[row]),
                image_id=0,
                annotation_id=int(result.boxes.ids[row]),
                centre=result.centre[row],
                extent=result.extent[row],
            )
            for row in range(len(result))
        ]

    def without_duplicates(self, result: Result) -> Result:
        """See `tcformer.inference.TaskPredictor.without_duplicates`. The persons of a file are all kept."""
        if len(result) < 2 or result.boxes.ids.any():
            return result
        numbered = [{**record, "row": row} for row, record in enumerate(self._results(result))]
        return result.chosen([record["row"] for record in oks_nms(numbered, _OKS_OF_DUPLICATES, self._points)])

    def records(self, result: Result) -> list[dict[str, Any]]:
        """Records in the format of COCO-WholeBody's results; image_id is added later."""
        records = self._results(result)
        for record, box in zip(records, rounded(result.boxes.xywh, PIXEL_DIGITS)):
            del record["image_id"]
            record.update({name: rounded(record[name], 3) for name in _LISTS}, score=round(record["score"], DIGITS))
            record["box"] = box  # "bbox" would change how pycocotools computes areas
        return records

    def draw(self, view: View, result: Result, threshold: float) -> NDArray[np.uint8]:
        """See `tcformer.inference.TaskPredictor.draw`."""
        points = view.place(self.triplets(result.points, result.scores))
        return pictures.keypoints(view.pixels, points, scale=1, threshold=threshold)

    def example(self, result: Result, row: int) -> Example:
        """See `tcformer.inference.TaskPredictor.example`."""
        inside = self.in_crop(result, row)
        points = self.triplets(inside[None, :, :2], inside[None, :, 2])[0]
        return Example(result.crops[row], result.tokens[row], points)


PREDICTOR = WholebodyPredictor
