"""The options of whole-body pose in params.yaml."""

from __future__ import annotations

from typing import Literal

from tcformer.data.wholebody.dataset import WholebodyAugmentation
from tcformer.data.wholebody.keypoints import SUBSETS
from tcformer.models import NECKS
from tcformer.models.options import check_name
from tcformer.parameters import parameters


@parameters
class WholebodyOptions:
    """What determines the head and the training samples."""

    #: which points are learned: all 133, or those of the body, feet, face or hands alone
    keypoints: str
    #: from the stages to heat maps, see `tcformer.models.NECKS`
    neck: str
    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: height, width of the crops in pixels
    input_size: tuple[int, int]
    #: factor by which a crop exceeds the person's box
    box_padding: float
    #: standard deviation of the target Gaussians in heat-map pixels (a heat map is a quarter of the crop)
    sigma: float
    #: random changes to training crops
    augmentation: WholebodyAugmentation

    def __post_init__(self) -> None:
        check_name("set of keypoints", self.keypoints, list(SUBSETS))
        check_name("neck", self.neck, NECKS)


@parameters
class WholebodyEvaluation:
    """How a trained network is measured."""

    #: boxes to crop: the annotated ones or those of the detection file
    boxes: Literal["ground_truth", "detections"]
    #: detections below this score are left out
    least_box_score: float
    #: average with the mirrored image's prediction
    flip_test: bool
    #: point scores above this count for the instance score
    keypoint_threshold: float
    #: of two results on an image with an OKS above this, the one of lower score is dropped
    oks_nms: float


OPTIONS = WholebodyOptions
EVALUATION = WholebodyEvaluation
