from pathlib import Path

import numpy as np
import pytest

from tcformer.data.face.dataset import list_file, load_faces
from tcformer.data.face.landmarks import ATTRIBUTES
from tcformer.metrics import area_under_curve, evaluate_face, face_nme, failure_rate
from tcformer.metrics.face import mean_shape, place_shape


def shape(eyes: float = 50.0) -> np.ndarray:
    """A face (98, 2) whose outer eye corners are `eyes` pixels apart."""
    points = np.random.default_rng(0).uniform(0, 100, (98, 2))
    points[60], points[72] = (20, 30), (20 + 0.6 * eyes, 30 + 0.8 * eyes)
    return points


def published_curve(nmes: np.ndarray) -> tuple[float, float]:
    """FR and AUC as STAR's evaluation writes them, with scipy's Simpson integral."""
    from scipy.integrate import simpson

    grid = np.arange(0, 0.1 + 0.0001, 0.0001)
    share = np.array([np.count_nonzero(nmes <= t) for t in grid]) / len(nmes)
    return 1 - share[-1], simpson(share, x=grid) / 0.1


def test_nme_by_hand() -> None:
    truth = np.stack([shape(50), shape(100), shape(50)])
    found = truth + [[[3.0, 4.0]], [[3.0, 4.0]], [[0.0, 0.0]]]
    assert face_nme(found, truth) == pytest.approx([0.1, 0.05, 0.0])
    found = truth.copy()
    found[0, 5] += [0, 49]  # one point of 98, by 49 pixels
    assert face_nme(found, truth)[0] == pytest.approx(49 / 98 / 50)
    # The annotated eyes count, not the predicted ones.
    found[0, 60] += [98, 0]
    assert face_nme(found, truth)[0] == pytest.approx((49 + 98) / 98 / 50)


def test_nme_is_the_mean_over_all_points_of_the_distance() -> None:
    rng = np.random.default_rng(1)
    truth, found = rng.uniform(0, 200, (2, 5, 98, 2))
    for n in range(5):
        total = sum(np.hypot(*(found[n, i] - truth[n, i])) for i in range(98)) / 98
        assert face_nme(found, truth)[n] == pytest.approx(total / np.hypot(*(truth[n, 60] - truth[n, 72])))
    assert face_nme(3 * found + 7, 3 * truth + 7) == pytest.approx(face_nme(found, truth))


@pytest.mark.parametrize("wrong", [(5, 68, 2), (98, 2), (4, 98, 2), (5, 98, 3)])
def test_wrong_shapes_are_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        face_nme(np.zeros(wrong), np.ones((5, 98, 2)))
    with pytest.raises(ValueError, match="attributes"):
        evaluate_face(np.zeros(5), np.zeros((5, 7)))


@pytest.mark.parametrize("count", [1, 2, 7, 500])
@pytest.mark.parametrize("spread", [0.005, 0.04, 0.3])
def test_curve_is_the_published_one(count: int, spread: float) -> None:
    nmes = np.random.default_rng(count).gamma(2.0, spread / 2, count)
    fr, auc = published_curve(nmes)
    assert failure_rate(nmes) == pytest.approx(fr, abs=1e-12)
    assert area_under_curve(nmes) == pytest.approx(auc, abs=1e-6)


def test_curve_by_hand() -> None:
    assert area_under_curve([0.0]) == pytest.approx(1.0)
    assert area_under_curve([0.05]) == pytest.approx(0.5, abs=1e-3)
    assert area_under_curve([0.2, 0.05]) == pytest.approx(0.25, abs=1e-3)
    assert area_under_curve([0.11, 9.0]) == 0
    assert failure_rate([0.1, 0.1000001, 0.02, np.nan]) == 0.5
    assert area_under_curve([0.05, np.nan]) == pytest.approx(0.25, abs=1e-3)


def test_subsets() -> None:
    nmes = np.array([0.02, 0.04, 0.2, 0.06])
    flags = np.zeros((4, 6), bool)
    flags[2, 0] = flags[[0, 1], 1] = flags[3, 5] = True
    measures = evaluate_face(nmes, flags)
    assert list(measures) == ["full", *ATTRIBUTES]
    assert measures["full"] == {
        "NME": pytest.approx(0.08),
        "FR10": 0.25,
        "AUC10": pytest.approx(published_curve(nmes)[1], abs=1e-6),
        "count": 4,
    }
    assert measures["pose"] == {"NME": 0.2, "FR10": 1.0, "AUC10": 0.0, "count": 1}
    assert measures["expression"]["NME"] == pytest.approx(0.03) and measures["expression"]["count"] == 2
    assert measures["blur"]["count"] == 1
    assert measures["make-up"] == {"NME": None, "FR10": None, "AUC10": None, "count": 0}
    assert evaluate_face([], np.zeros((0, 6)))["full"]["NME"] is None


def test_the_mean_shape_of_one_face_is_that_face() -> None:
    centre, extent = np.array([[50.0, 40.0]]), np.array([[120.0, 100.0]])
    points = shape()[None]
    assert place_shape(mean_shape(points, centre, extent), centre, extent) == pytest.approx(points)
    two = np.concatenate([points, 2 * points + 5])  # the same face at another place and size
    middle, size = np.concatenate([centre, 2 * centre + 5]), np.concatenate([extent, 2 * extent])
    assert place_shape(mean_shape(two, middle, size), middle, size) == pytest.approx(two)


def test_four_real_faces(samples: Path) -> None:
    truth = load_faces(list_file(samples / "wflw", "test")).points
    assert (face_nme(truth, truth) == 0).all()
    eyes = np.linalg.norm(truth[:, 60] - truth[:, 72], axis=-1)
    assert face_nme(truth + [0.0, 1.0], truth) == pytest.approx(1 / eyes)
    assert ((eyes > 20) & (eyes < 120)).all()
    # Against the mirror image's order every point but the ten in the middle is far off.
    assert (face_nme(truth[:, ::-1], truth) > 0.3).all()
