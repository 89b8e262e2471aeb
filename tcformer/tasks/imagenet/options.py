"""The options of image classification in params.yaml."""

from __future__ import annotations

from tcformer.data.imagenet.dataset import ImageAugmentation
from tcformer.parameters import parameters


@parameters
class ImagenetOptions:
    """What determines the head and the samples."""

    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: number of class folders
    num_classes: int
    #: side of the network's input in pixels
    input_size: int
    #: share of the resized image's short side that the centre crop takes where images are not augmented
    crop_fraction: float
    #: random changes to training images
    augmentation: ImageAugmentation


OPTIONS = ImagenetOptions
EVALUATION = None  # nothing to choose
