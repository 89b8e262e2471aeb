"""The options of face alignment in params.yaml."""

from __future__ import annotations

from tcformer.data.face.dataset import FaceAugmentation
from tcformer.heatmaps.names import CodecName, Decoding
from tcformer.models import NECKS
from tcformer.models.options import check_name
from tcformer.parameters import parameters


@parameters
class FaceOptions:
    """Options of the head and the training samples."""

    #: neck between the stages and the heat maps, see `tcformer.models.NECKS`
    neck: str
    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: height, width of the crops in pixels
    input_size: tuple[int, int]
    #: factor by which a crop is larger than the longer side of the box around the landmarks
    box_padding: float
    #: how points become heat maps and heat maps points, see `tcformer.heatmaps.codecs.CODECS`
    codec: CodecName
    #: standard deviation of the target Gaussians in heat-map pixels (a heat map is a quarter of the crop)
    sigma: float
    #: random changes of training crops
    augmentation: FaceAugmentation

    def __post_init__(self) -> None:
        check_name("neck", self.neck, NECKS)


@parameters
class FaceEvaluation:
    """Options of the evaluation."""

    #: average the predictions for an image and for its mirror image
    flip_test: bool
    #: where between the pixels a maximum is, see `tcformer.heatmaps.decode.REFINEMENTS`; auto: as in the codec
    decoding: Decoding


OPTIONS = FaceOptions
EVALUATION = FaceEvaluation
