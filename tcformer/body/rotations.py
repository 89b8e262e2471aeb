"""Rotations as matrices, axis-angle vectors and the first two columns of a matrix (numpy, float64).

`scipy.spatial.transform.Rotation` gives the same rotations, but other last bits. These functions determine samples,
initial weights and generated datasets, whose bits must not change with the version of a library.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tcformer.body.joints import NUM_JOINTS, SMPL_FLIP

Array = NDArray[np.float64]


def to_matrix(axis_angle: ArrayLike) -> Array:
    """Convert axis-angle vectors (..., 3), in radians, to rotation matrices (..., 3, 3) by Rodrigues' formula."""
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)
    # sin(a) / a and (1 - cos(a)) / a^2, both defined at 0
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * (cross @ cross)


def to_axis_angle(matrix: ArrayLike) -> Array:
    """Convert rotation matrices (..., 3, 3) to axis-angle vectors (..., 3) of length 0 to pi.

    The conversion goes through quaternions, from their largest component, so that half turns are exact as well.
    """
    m = np.asarray(matrix, np.float64)
    flat = m.reshape(-1, 3, 3)
    diagonal = np.diagonal(flat, axis1=1, axis2=2)
    trace = diagonal.sum(1)
    squares = np.concatenate([1 + trace[:, None], 1 - trace[:, None] + 2 * diagonal], 1)  # 4 w², 4 x², 4 y², 4 z²
    skew = np.stack([flat[:, 2, 1] - flat[:, 1, 2], flat[:, 0, 2] - flat[:, 2, 0], flat[:, 1, 0] - flat[:, 0, 1]], 1)
    products = np.zeros((len(flat), 4, 4))  # 4 times the products of the quaternion's components
    products[:, range(4), range(4)] = squares
    products[:, 0, 1:] = products[:, 1:, 0] = skew
    for i, j in ((0, 1), (0, 2), (1, 2)):
        products[:, i + 1, j + 1] = products[:, j + 1, i + 1] = flat[:, i, j] + flat[:, j, i]
    best = squares.argmax(1)
    quaternion = products[np.arange(len(flat)), best]
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    quaternion *= np.where(quaternion[:, :1] < 0, -1, 1)
    sine = np.linalg.norm(quaternion[:, 1:], axis=1)
    angle = 2 * np.arctan2(sine, quaternion[:, 0])
    factor = np.divide(angle, sine, out=np.full(len(flat), 2.0), where=sine > 1e-12)
    return (quaternion[:, 1:] * factor[:, None]).reshape(m.shape[:-1])


def nearest_rotation(matrix: ArrayLike) -> Array:
    """The rotation (..., 3, 3) nearest to each matrix (..., 3, 3); of a mean of rotations, the chordal mean."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    sign = np.ones((*u.shape[:-2], 3))
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    return (u * sign[..., None, :]) @ vt


def to_6d(matrix: ArrayLike) -> Array:
    """The first two columns of matrices (..., 3, 3) as (..., 6), in SPIN's order r00, r01, r10, r11, r20, r21."""
    m = np.asarray(matrix, np.float64)
    return m[..., :2].reshape(*m.shape[:-2], 6)


def flip_pose(pose: ArrayLike) -> Array:
    """Mirror SMPL poses (..., 72) at x = 0: exchange the sides, negate y and z of each axis-angle vector."""
    joints = np.asarray(pose, np.float64)
    joints = joints.reshape(*joints.shape[:-1], NUM_JOINTS, 3)[..., SMPL_FLIP, :] * [1.0, -1.0, -1.0]
    return joints.reshape(*joints.shape[:-2], 3 * NUM_JOINTS)
