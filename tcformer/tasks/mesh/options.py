"""The options of body mesh recovery in params.yaml."""

from __future__ import annotations

from typing import Literal

from tcformer.data.mesh.dataset import MeshAugmentation
from tcformer.parameters import parameters


@parameters
class MeshSource:
    """An annotation file and its images."""

    #: file or folder below the data root that `tcformer.data.load_bodies` reads: SPIN's .npz, EFT's .json, ...
    annotations: str
    #: folder below the data root that image names are relative to
    images: str


@parameters
class MeshGroup:
    """Training sets among which a part of the samples is divided by their sizes."""

    #: part of the training samples, in any unit
    weight: float
    sources: tuple[MeshSource, ...]


@parameters
class MeshTest:
    """A test set and its protocol."""

    #: its name in the results
    name: str
    #: see `MeshSource`
    annotations: str
    #: see `MeshSource`
    images: str
    #: ground truth: the body of the person's gender in the annotated pose (3dpw), or the file's 3D joints (h36m)
    protocol: Literal["3dpw", "h36m"]


@parameters
class MeshLoss:
    """Weights of the losses."""

    #: of the projected joints
    keypoints: float
    #: of OpenPose's points among them, relative to annotated points
    openpose: float
    #: of the 3D joints relative to the centre of the hips
    joints: float
    #: of the rotation matrices
    pose: float
    #: of the shape coefficients
    shape: float
    #: of the sum of all losses
    overall: float


@parameters
class MeshOptions:
    """Options of the head, the training samples and the losses."""

    #: stochastic depth: probability of dropping the last block, rising linearly from 0 at the first
    drop_path: float
    #: side of the crops in pixels
    input_size: int
    #: the training sets
    mixture: tuple[MeshGroup, ...]
    #: the validation set
    validation: MeshTest
    #: random changes of training crops
    augmentation: MeshAugmentation
    #: weights of the losses
    loss: MeshLoss


@parameters
class MeshEvaluation:
    """Options of the evaluation."""

    #: the test sets
    tests: tuple[MeshTest, ...]


OPTIONS = MeshOptions
EVALUATION = MeshEvaluation
