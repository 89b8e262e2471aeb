"""Conversions of rotations, against scipy's."""

import numpy as np
from scipy.spatial.transform import Rotation

from tcformer.body.rotations import nearest_rotation, to_6d, to_axis_angle, to_matrix

RNG = np.random.default_rng(0)
POSE = RNG.normal(0, 0.5, (3, 24, 3))


def test_rotations_as_scipy() -> None:
    half_turns = np.array([[np.pi, 0, 0], [0, -np.pi, 0], [0, 0, np.pi], [0, 0, 0], [1e-9, 0, 0]])
    vectors = np.concatenate([POSE.reshape(-1, 3), half_turns, 3 * RNG.normal(size=(200, 3))])
    matrices = to_matrix(vectors)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)
    back = to_axis_angle(matrices)
    assert np.linalg.norm(back, axis=1).max() <= np.pi + 1e-9
    np.testing.assert_allclose(to_matrix(back), matrices, atol=1e-12)
    assert to_axis_angle(matrices.reshape(1, -1, 3, 3)).shape == (1, len(vectors), 3)
    np.testing.assert_allclose(nearest_rotation(2.5 * matrices), matrices, atol=1e-12)
    np.testing.assert_array_equal(to_6d(matrices)[0], matrices[0][:, :2].reshape(-1))


def test_nearest_rotation_is_no_reflection() -> None:
    for matrix in (np.diag([1.0, 1.0, -0.1]), -np.eye(3), RNG.normal(size=(50, 3, 3))):
        np.testing.assert_allclose(np.linalg.det(nearest_rotation(matrix)), 1)
