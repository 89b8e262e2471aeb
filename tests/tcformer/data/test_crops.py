import numpy as np
import pytest

from tcformer.data.crops import centre_and_extent, crop_matrix, cut_crop, to_image, transform_points

SIZE = (128, 96)


def three_point_matrix(centre, extent, rotation, size):
    """The same map as HRNet's and mmpose's get_affine_transform, from its three point pairs."""
    turn = np.deg2rad(rotation)
    up = np.array([extent[0] / 2 * np.sin(turn), -extent[0] / 2 * np.cos(turn)])
    source = np.array([centre, centre + up, centre + up + [up[1], -up[0]]])
    middle, up = np.array([size[1] / 2, size[0] / 2]), np.array([0, -size[1] / 2])
    target = np.array([middle, middle + up, middle + up + [up[1], -up[0]]])
    return np.linalg.solve(np.c_[source, np.ones(3)], target).T


@pytest.mark.parametrize("rotation", [0.0, 30.0, -75.0])
def test_matrix_is_the_classic_one(rotation: float) -> None:
    centre, extent = np.array([211.3, 97.0]), np.array([150.0, 200.0])
    expected = three_point_matrix(centre, extent, rotation, SIZE)
    assert np.allclose(crop_matrix(centre, extent, rotation=rotation, input_size=SIZE), expected)


def test_extent_has_the_inputs_aspect_and_holds_the_box() -> None:
    centre, extent = centre_and_extent([[10, 20, 30, 10], [10, 20, 30, 100]], input_size=SIZE, padding=1.25)
    assert np.allclose(centre, [[25, 25], [25, 70]])
    assert np.allclose(extent[:, 0] / extent[:, 1], 96 / 128)
    assert np.allclose(extent, [[37.5, 50], [93.75, 125]])


def test_a_point_goes_to_the_crop_and_back() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 300, (2, 7, 2))
    centre, extent = centre_and_extent(rng.uniform(20, 200, (2, 4)), input_size=SIZE, padding=1.25)
    inside = np.stack(
        [transform_points(p, crop_matrix(c, e, rotation=0, input_size=SIZE)) for p, c, e in zip(points, centre, extent)]
    )
    assert np.allclose(to_image(inside, centre, extent, SIZE), points)


def test_flipping_the_crop_is_cropping_the_flipped_image() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 255, (90, 120, 3), np.uint8), (7, 7), 0)
    points = rng.uniform(0, 90, (5, 2))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    mirrored_points = np.stack([119 - points[:, 0], points[:, 1]], -1)
    centre, extent = (50.0, 40.0), (60.0, 80.0)
    plain, flipped = (
        crop_matrix(centre, extent, rotation=25, input_size=SIZE),
        crop_matrix(centre, extent, rotation=25, input_size=SIZE, flip_width=120),
    )
    assert np.allclose(transform_points(points, flipped), transform_points(mirrored_points, plain))
    one, other = cut_crop(image, flipped, SIZE), cut_crop(mirrored, plain, SIZE)
    assert np.abs(one.astype(int) - other).mean() < 1
    by_opencv = cv2.warpAffine(image, flipped, SIZE[::-1], flags=cv2.INTER_LINEAR)
    assert np.abs(one.astype(int) - by_opencv).max() <= 4, "positions are rounded to 1/32 pixel"
