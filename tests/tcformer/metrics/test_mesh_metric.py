"""MPJPE and PA-MPJPE against scipy, and the protocols' joints."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from tcformer.metrics import mpjpe, pa_mpjpe
from tcformer.metrics.mesh import common_joints, human36m_truth, joint_errors, procrustes, threedpw_truth

RNG = np.random.default_rng(0)
GT = RNG.normal(size=(50, 14, 3)) * [0.3, 0.6, 0.2]
PRED = GT + 0.05 * RNG.normal(size=GT.shape)


def similar(joints: np.ndarray) -> np.ndarray:
    """Each sample turned, scaled and shifted by its own amount."""
    turns = Rotation.random(len(joints), rng=1).as_matrix()
    return RNG.uniform(0.2, 5, (len(joints), 1, 1)) * (joints @ turns) + RNG.normal(size=(len(joints), 1, 3))


def test_mpjpe_is_the_mean_distance_in_millimetres() -> None:
    assert mpjpe(GT, GT) == 0
    shifted = GT + np.array([0.003, 0.0, 0.004])
    assert mpjpe(shifted, GT) == pytest.approx(5)
    half = GT.copy()
    half[:25, :7, 2] += 0.02
    assert mpjpe(half, GT) == pytest.approx(5)
    assert joint_errors(half, GT)[[0, 49]] == pytest.approx([10, 0])


def test_pa_mpjpe_sees_no_similarity_transform() -> None:
    assert pa_mpjpe(similar(GT), GT) == pytest.approx(0, abs=1e-6)
    assert pa_mpjpe(similar(PRED), GT) == pytest.approx(pa_mpjpe(PRED, GT))
    assert pa_mpjpe(PRED, GT) < mpjpe(PRED, GT)


def test_pa_mpjpe_turns_the_prediction_not_the_truth() -> None:
    assert pa_mpjpe(PRED, 2 * GT) == pytest.approx(2 * pa_mpjpe(PRED, GT))
    assert pa_mpjpe(2 * PRED, GT) == pytest.approx(pa_mpjpe(PRED, GT))


def test_procrustes_as_scipy() -> None:
    """scipy.spatial.procrustes fits the second to the first with reflections allowed, both of unit norm."""
    aligned = procrustes(PRED, GT)
    for sample in range(len(GT)):
        true, fitted, _ = scipy_procrustes(GT[sample], PRED[sample])
        centred = GT[sample] - GT[sample].mean(0)
        ours = (aligned[sample] - GT[sample].mean(0)) / np.linalg.norm(centred)
        np.testing.assert_allclose(true, centred / np.linalg.norm(centred))
        np.testing.assert_allclose(ours, fitted, atol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
def test_mirror_images_are_not_turned_inside_out(noise: float) -> None:
    """Against the best of scipy's orthogonal fits to the truth with a reversed axis of the prediction."""
    mirrored = similar(GT * [-1, 1, 1] + noise * RNG.normal(size=GT.shape))
    aligned = procrustes(mirrored, GT)
    for sample in range(len(GT)):
        x, y = mirrored[sample] - mirrored[sample].mean(0), GT[sample] - GT[sample].mean(0)
        turn = np.linalg.lstsq(x, aligned[sample] - GT[sample].mean(0), rcond=None)[0]
        scale = np.cbrt(np.linalg.det(turn))
        assert scale > 0
        np.testing.assert_allclose(turn / scale @ turn.T / scale, np.eye(3), atol=1e-8)
        best, _ = orthogonal_procrustes(x, y)
        residual = np.linalg.norm(aligned[sample] - GT[sample])
        reflected = np.linalg.norm(x @ best * ((x @ best * y).sum() / (x**2).sum()) - y)
        assert residual >= reflected - 1e-9  # equal where no reflection was needed
        for turned in Rotation.random(200, rng=sample).as_matrix():
            other = x @ turned
            other *= max((other * y).sum() / (x**2).sum(), 0.0)  # a negative scale is a reflection
            assert residual <= np.linalg.norm(other - y) + 1e-9
    if noise < 1:
        assert pa_mpjpe(mirrored, GT) > 20  # scipy's reflections would give almost nothing


def test_degenerate_samples_are_defined() -> None:
    point = np.zeros((2, 14, 3))
    assert np.isfinite(pa_mpjpe(point, GT[:2])) and np.isfinite(pa_mpjpe(GT[:2], point))
    flat = GT[:2] * [1, 1, 0]
    assert pa_mpjpe(flat, flat) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("pred", "gt"), [(GT, GT[:3]), (GT[0], GT[0]), (GT[..., :2], GT[..., :2]), (GT[:0], GT[:0])])
def test_wrong_shapes(pred: np.ndarray, gt: np.ndarray) -> None:
    for measure in (mpjpe, pa_mpjpe):
        with pytest.raises(ValueError, match="expected"):
            measure(pred, gt)


def test_joints_of_the_protocols() -> None:
    h36m = RNG.normal(size=(4, 17, 3))
    joints = common_joints(h36m)
    assert joints.shape == (4, 14, 3)
    np.testing.assert_allclose(common_joints(h36m + 7.0), joints)
    np.testing.assert_array_equal(joints[:, 0], h36m[:, 6] - h36m[:, 0])  # right ankle
    np.testing.assert_array_equal(joints[:, 13], h36m[:, 10] - h36m[:, 0])  # head top
    male, female = h36m[:2], h36m[2:]
    truth = threedpw_truth(male, female, [True, False])
    np.testing.assert_array_equal(truth, np.stack([common_joints(male)[0], common_joints(female)[1]]))
    s = np.concatenate([RNG.normal(size=(4, 24, 3)), np.ones((4, 24, 1))], 2)
    truth = human36m_truth(s)
    np.testing.assert_array_equal(truth[:, 12:], s[:, [12, 18], :3] - s[:, 14:15, :3])
    np.testing.assert_array_equal(truth, human36m_truth(s[..., :3]))
