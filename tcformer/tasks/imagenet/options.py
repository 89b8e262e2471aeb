"""The options of image classification in params.yaml."""

from __future__ import annotations

from tcformer.data.imagenet.dataset import ImageAugmentation
from tcformer.parameters import parameters


@parameters
class ImagenetOptions:
    """Options of the head and the samples."""

    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: number of class folders
    num_classes: int
    #: side of the network's input in pixels
    input_size: int
    #: side of the centre crop of an image that is not augmented, as a fraction of the short side of the resized image
    crop_fraction: float
    #: random changes of training images
    augmentation: ImageAugmentation


OPTIONS = ImagenetOptions
EVALUATION = None  # the evaluation has no options
