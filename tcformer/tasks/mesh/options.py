"""The options of body mesh recovery in params.yaml."""

from __future__ import annotations

from typing import Literal

from tcformer.data.mesh.dataset import MeshAugmentation
from tcformer.parameters import parameters


@parameters
class MeshSource:
    """Annotations and the images they speak of."""

    #: below the data root: SPIN's .npz, EFT's .json, or the folder of a split's sequences of 3DPW
    annotations: str
    #: below the data root: the folder that image names are relative to
    images: str


@parameters
class MeshGroup:
    """Training sets that share a part of the samples, each by its size."""

    #: part of the training samples, in any unit
    weight: float
    sources: tuple[MeshSource, ...]


@parameters
class MeshTest:
    """A test set and how its truth is made."""

    #: what the results call it
    name: str
    #: as of `MeshSource`
    annotations: str
    #: as of `MeshSource`
    images: str
    #: 3dpw: the body of the person's gender in the true pose; h36m: the file's 3D joints
    protocol: Literal["3dpw", "h36m"]


@parameters
class MeshLoss:
    """Weights of the losses."""

    #: of the projected joints
    keypoints: float
    #: of OpenPose's points among them, relative to annotated ones
    openpose: float
    #: of the joints in space, relative to the middle of the hips
    joints: float
    #: of the rotation matrices
    pose: float
    #: of the shape coefficients
    shape: float
    #: of the whole
    overall: float


@parameters
class MeshOptions:
    """What determines the head and the training samples."""

    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: side of the crops in pixels
    input_size: int
    #: the training sets
    mixture: tuple[MeshGroup, ...]
    #: on what training is watched
    validation: MeshTest
    #: random changes to training crops
    augmentation: MeshAugmentation
    loss: MeshLoss


@parameters
class MeshEvaluation:
    """How a trained network is measured."""

    #: the test sets
    tests: tuple[MeshTest, ...]


OPTIONS = MeshOptions
EVALUATION = MeshEvaluation
