"""The options of a dataset of the user's own keypoints in params.yaml."""

from __future__ import annotations

from dataclasses import asdict

from tcformer.data.wholebody.dataset import WholebodyAugmentation
from tcformer.heatmaps.names import CodecName, Decoding
from tcformer.models import NECKS
from tcformer.models.options import check_name
from tcformer.parameters import parameters


@parameters
class KeypointFiles:
    """Annotations and their images."""

    #: COCO keypoint file, or folder of .pts files, below the data root
    annotations: str
    #: folder below the data root that image names are relative to
    images: str


@parameters
class KeypointsAugmentation:
    """Random changes of a training crop, as those of whole-body pose."""

    #: probability of shifting the box centre
    shift_probability: float
    #: largest shift of the box centre along each axis, as a fraction of the padded box
    shift: float
    #: probability of mirroring; above 0 only with left/right pairs
    flip_probability: float
    #: standard deviation of the relative size of the crop, and its largest difference from 1
    scale: float
    #: standard deviation of the rotation in degrees; rotations are clipped to twice this
    rotation: float
    #: probability of rotating
    rotation_probability: float

    def of_crops(self) -> WholebodyAugmentation:
        """The same for the dataset of crops, without half-body crops."""
        return WholebodyAugmentation(**asdict(self), half_body_probability=0.0, half_body_points=0)


@parameters
class KeypointsOptions:
    """The files, and options of the head and the training samples."""

    train: KeypointFiles
    val: KeypointFiles
    #: name of the category whose keypoints are predicted; null: the only one that has keypoints
    category: str | None
    #: YAML file below the data root that describes the points; null: the category describes them
    points: str | None
    #: neck between the stages and the heat maps, see `tcformer.models.NECKS`
    neck: str
    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: height, width of the crops in pixels
    input_size: tuple[int, int]
    #: factor by which a crop is larger than the box
    box_padding: float
    #: how points become heat maps and heat maps points, see `tcformer.heatmaps.codecs.CODECS`
    codec: CodecName
    #: standard deviation of the target Gaussians in heat-map pixels (a heat map is a quarter of the crop)
    sigma: float
    #: random changes of training crops
    augmentation: KeypointsAugmentation

    def __post_init__(self) -> None:
        check_name("neck", self.neck, NECKS)


@parameters
class KeypointsEvaluation:
    """Options of the evaluation."""

    #: what to measure on; null: the validation files of the training
    test: KeypointFiles | None
    #: average the predictions for an image and for its mirror image; only with left/right pairs
    flip_test: bool
    #: where between the pixels a maximum is, see `tcformer.heatmaps.decode.REFINEMENTS`; auto: as in the codec
    decoding: Decoding
    #: point scores above this count in the score of a result
    keypoint_threshold: float


OPTIONS = KeypointsOptions
EVALUATION = KeypointsEvaluation
