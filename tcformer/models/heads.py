"""Heads of keypoint and mesh networks: heat maps, body parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcformer.body.camera import MEAN_CAMERA
from tcformer.body.joints import NUM_JOINTS, NUM_SHAPES

POSE_NUMBERS = 6 * NUM_JOINTS
_HIDDEN = 1024
_DROPOUT = 0.5


class HeatmapHead(nn.Module):
    """A 1x1 convolution to a heat map for each keypoint."""

    def __init__(self, width: int, num_keypoints: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(width, num_keypoints, kernel_size=1)

    def reset_parameters(self) -> None:
        """Initialise near zero.

        Heat maps are 0 almost everywhere. With the initialisation of other layers, the first heat maps would be large,
        and training would spend thousands of steps on the plateau of heat maps that are all 0.
        """
        assert self.final_layer.bias is not None
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)

    def forward(self, m: Tensor) -> Tensor:
        """Compute contiguous heat maps (B, K, H, W) from a map (B, C, H, W)."""
        # A matrix product, because losses and decoders need contiguous heat maps, but a convolution of a map in the
        # channels-last memory format returns interleaved ones. `m.shape[0]`, because `len` would fix the batch size of
        # an exported network.
        pixels = m.flatten(2)  # (B, C, HW)
        weight, bias = self.final_layer.weight.flatten(1), self.final_layer.bias  # (K, C), (K,)
        assert bias is not None
        maps = torch.baddbmm(bias[None, :, None], weight.expand(m.shape[0], -1, -1), pixels)  # (B, K, HW)
        return maps.unflatten(2, m.shape[2:])


class MeshPrediction(NamedTuple):
    """Parameters of a body model for a batch of images.

    Attributes:
        rotations: (B, 24, 3, 3) rotation matrices of SMPL's joints relative to their parents, the root's first.
        shape: (B, 10) shape coefficients.
        camera: (B, 3) weak-perspective camera: scale, and translation in x and y, in units of half the crop.
    """

    rotations: Tensor
    shape: Tensor
    camera: Tensor


class MeshHead(nn.Module):
    """Iterative regression of body parameters from a feature vector, as in HMR.

    Pose (24 rotations of 6 numbers), shape and camera start from mean values. Three times, a small network predicts a
    correction from the features and the current values.

    Args:
        width: number of features of an image.

    Attributes:
        mean: (157,) buffer, the initial values: 144 pose numbers, 10 shape coefficients, 3 camera numbers.

    Source: Kanazawa et al., HMR, CVPR 2018; the 6-number rotations of Zhou et al., CVPR 2019, in the layout of
    SPIN (Kolotouros et al., ICCV 2019).
    """

    ITERATIONS = 3

    mean: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        numbers = POSE_NUMBERS + NUM_SHAPES + 3
        self.fc1 = nn.Linear(width + numbers, _HIDDEN)
        self.drop1 = nn.Dropout(_DROPOUT)
        self.fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.drop2 = nn.Dropout(_DROPOUT)
        self.decpose = nn.Linear(_HIDDEN, POSE_NUMBERS)
        self.decshape = nn.Linear(_HIDDEN, NUM_SHAPES)
        self.deccam = nn.Linear(_HIDDEN, 3)
        rest = torch.eye(3)[:, :2].flatten().repeat(NUM_JOINTS)  # identities
        self.register_buffer("mean", torch.cat([rest, torch.zeros(NUM_SHAPES), torch.tensor(MEAN_CAMERA)]))

    def reset_parameters(self) -> None:
        """Initialise as HMR: the hidden layers as PyTorch does, the last layers to corrections of almost 0."""
        for layer in (self.fc1, self.fc2):
            layer.reset_parameters()
        for layer in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
            nn.init.zeros_(layer.bias)

    def set_mean(self, pose: Tensor, shape: Tensor, camera: Tensor) -> None:
        """Set the initial values.

        Args:
            pose: (144,), 6 numbers for each rotation, see `rotations_from_6d`.
            shape: (10,) shape coefficients.
            camera: (3,) scale and shift.
        """
        self.mean.copy_(torch.cat([pose.flatten(), shape.flatten(), camera.flatten()]))

    def forward(self, features: Tensor) -> MeshPrediction:
        """Predict body parameters from features (B, C)."""
        values = self.mean.to(features.dtype).expand(features.shape[0], -1)  # (B, 157)
        for _ in range(self.ITERATIONS):
            hidden = self.drop1(self.fc1(torch.cat([features, values], 1)))
            hidden = self.drop2(self.fc2(hidden))  # (B, 1024)
            values = values + torch.cat([self.decpose(hidden), self.decshape(hidden), self.deccam(hidden)], 1)
        pose, shape, camera = values.split([POSE_NUMBERS, NUM_SHAPES, 3], 1)
        return MeshPrediction(rotations_from_6d(pose.unflatten(1, (NUM_JOINTS, 6))), shape, camera)


def rotations_from_6d(x: Tensor) -> Tensor:
    """Make rotation matrices from two columns that need not be orthonormal.

    Args:
        x: (..., 6): the (3, 2) matrix of two column vectors, row by row, as SPIN stores it.

    Returns:
        (..., 3, 3) rotation matrices: the first column is normalised, the second is made orthogonal to it, the third is
        their cross product.

    Source: Zhou et al., On the Continuity of Rotation Representations, CVPR 2019.
    """
    a, b = x.unflatten(-1, (3, 2)).unbind(-1)  # (..., 3) each
    first = F.normalize(a, dim=-1)
    second = F.normalize(b - (first * b).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)
