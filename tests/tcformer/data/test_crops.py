import numpy as np
import pytest

from tcformer.data.crops import centre_and_extent, crop_matrix, to_image, transform_points
from tcformer.heatmaps.encode import gaussian_heat_maps

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
    assert np.allclose(crop_matrix(centre, extent, rotation, SIZE), expected)


def test_extent_has_the_inputs_aspect_and_holds_the_box() -> None:
    centre, extent = centre_and_extent([[10, 20, 30, 10], [10, 20, 30, 100]], SIZE, 1.25)
    assert np.allclose(centre, [[25, 25], [25, 70]])
    assert np.allclose(extent[:, 0] / extent[:, 1], 96 / 128)
    assert np.allclose(extent, [[37.5, 50], [93.75, 125]])


def test_a_point_goes_to_the_crop_and_back() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 300, (2, 7, 2))
    centre, extent = centre_and_extent(rng.uniform(20, 200, (2, 4)), SIZE, 1.25)
    inside = np.stack([transform_points(p, crop_matrix(c, e, 0, SIZE)) for p, c, e in zip(points, centre, extent)])
    assert np.allclose(to_image(inside, centre, extent, SIZE), points)
    assert np.allclose(to_image(inside / 4, centre, extent, (32, 24)), points)


def test_flipping_the_crop_is_cropping_the_flipped_image() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 255, (90, 120, 3), np.uint8), (7, 7), 0)
    points = rng.uniform(0, 90, (5, 2))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    mirrored_points = np.stack([119 - points[:, 0], points[:, 1]], -1)
    centre, extent = (50.0, 40.0), (60.0, 80.0)
    plain, flipped = (
        crop_matrix(centre, extent, 25, SIZE),
        crop_matrix(centre, extent, 25, SIZE, flip_width=120),
    )
    assert np.allclose(transform_points(points, flipped), transform_points(mirrored_points, plain))
    one = cv2.warpAffine(image, flipped, SIZE[::-1], flags=cv2.INTER_LINEAR)
    other = cv2.warpAffine(mirrored, plain, SIZE[::-1], flags=cv2.INTER_LINEAR)
    assert np.abs(one.astype(int) - other).mean() < 1


def loop_heat_maps(points, weights, size, map_size, sigma):
    """The published loop over points, windows and clipping, for one person."""
    (height, width), radius = map_size, 3 * sigma
    maps, kept = np.zeros((len(points), height, width), np.float32), weights.copy()
    for k, point in enumerate(points):
        x = int(point[0] / (size[1] / width) + 0.5)
        y = int(point[1] / (size[0] / height) + 0.5)
        if x - radius >= width or y - radius >= height or x + radius + 1 < 0 or y + radius + 1 < 0:
            kept[k] = 0
        if kept[k] > 0.5:
            for row in range(max(0, y - radius), min(height, y + radius + 1)):
                for column in range(max(0, x - radius), min(width, x + radius + 1)):
                    maps[k, row, column] = np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * sigma**2))
    return maps, kept


def test_heat_maps_are_those_of_the_published_loop() -> None:
    import torch

    rng = np.random.default_rng(2)
    points = rng.uniform(-60, 170, (60, 2)).astype(np.float32)
    points[:4] = [[0, 0], [95, 127], [-1.9, 3], [96 + 22, 20]]
    weights = (rng.random(60) < 0.8).astype(np.float32)
    weights[:4] = 1
    maps, kept = gaussian_heat_maps(
        torch.from_numpy(points)[None], torch.from_numpy(weights)[None], SIZE, (32, 24), 2.0
    )
    expected, expected_weights = loop_heat_maps(points, weights, SIZE, (32, 24), 2)
    assert np.allclose(maps[0], expected, atol=1e-6)
    assert (kept[0].numpy() == expected_weights).all()
    assert 0 < expected_weights.sum() < weights.sum()


def test_the_peak_stands_at_the_point() -> None:
    import torch

    points = torch.tensor([[[40.0, 61.9], [0.0, 127.0]]])
    maps, _ = gaussian_heat_maps(points, torch.ones(1, 2), SIZE, (32, 24), 2.0)
    assert maps[0, 0].argmax() == 15 * 24 + 10 and maps[0, 0].max() == 1
    # The last row's pixel 32 is outside, its Gaussian is not.
    assert 0 < maps[0, 1].max() < 1
