"""SPIN's weak-perspective camera: scale s and shift x, y of a body in a square crop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

#: Focal length over the side of the crop: 5000 pixels for a crop of 224.
FOCAL_OVER_SIDE: Final = 5000 / 224

#: HMR's camera of a person who fills the crop: scale, and shift in half crops.
MEAN_CAMERA: Final = (0.9, 0.0, 0.0)


def project(points: Tensor, camera: Tensor) -> Tensor:
    """Project points of a body into the crop.

    The camera stands for a perspective one of the focal length above, at the distance where the body's scale is s.

    Args:
        points: (B, N, 3) metres, camera axes.
        camera: (B, 3) scale s and shift x, y.

    Returns:
        (B, N, 2) in half crops from the crop's centre.
    """
    # The distance is 2 f / s; numerator and denominator are multiplied by s, so that a scale of 0 does not divide by 0.
    s = camera[:, None, :1]
    return s * (points[..., :2] + camera[:, None, 1:]) / (1 + s * points[..., 2:] / (2 * FOCAL_OVER_SIDE))
