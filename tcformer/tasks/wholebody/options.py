"""The options of whole-body pose in params.yaml."""

from __future__ import annotations

from typing import Literal

from tcformer.data.wholebody.dataset import WholebodyAugmentation
from tcformer.data.wholebody.keypoints import SUBSETS
from tcformer.heatmaps.names import CodecName, Decoding
from tcformer.models import NECKS
from tcformer.models.options import check_name
from tcformer.parameters import parameters


@parameters
class WholebodyOptions:
    """Options of the head and the training samples."""

    #: which points are predicted: all 133, or only those of the body, feet, face or hands
    keypoints: str
    #: neck between the stages and the heat maps, see `tcformer.models.NECKS`
    neck: str
    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: height, width of the crops in pixels
    input_size: tuple[int, int]
    #: factor by which a crop is larger than the box of the person
    box_padding: float
    #: how points become heat maps and heat maps points, see `tcformer.heatmaps.codecs.CODECS`
    codec: CodecName
    #: standard deviation of the target Gaussians in heat-map pixels (a heat map is a quarter of the crop)
    sigma: float
    #: random changes of training crops
    augmentation: WholebodyAugmentation

    def __post_init__(self) -> None:
        check_name("set of keypoints", self.keypoints, list(SUBSETS))
        check_name("neck", self.neck, NECKS)


@parameters
class WholebodyEvaluation:
    """Options of the evaluation."""

    #: boxes to crop: the annotated ones or those of the detection file
    boxes: Literal["ground_truth", "detections"]
    #: detections with a lower score are dropped
    least_box_score: float
    #: average the predictions for an image and for its mirror image
    flip_test: bool
    #: where between the pixels a maximum is, see `tcformer.heatmaps.decode.REFINEMENTS`; auto: as in the codec
    decoding: Decoding
    #: point scores above this count in the score of a result
    keypoint_threshold: float
    #: of two results on an image with an OKS above this, the one with the lower score is removed
    oks_nms: float


OPTIONS = WholebodyOptions
EVALUATION = WholebodyEvaluation
