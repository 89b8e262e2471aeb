"""Encoding points as heat maps: the published loop, and the position of the peak."""

import numpy as np
import pytest
import torch

from tcformer.errors import UserError
from tcformer.heatmaps import check_input_size, gaussian_heat_maps

SIZE = (128, 96)


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
    rng = np.random.default_rng(2)
    points = rng.uniform(-60, 170, (60, 2)).astype(np.float32)
    points[:4] = [[0, 0], [95, 127], [-1.9, 3], [96 + 22, 20]]
    weights = (rng.random(60) < 0.8).astype(np.float32)
    weights[:4] = 1
    maps, kept = gaussian_heat_maps(
        torch.from_numpy(points)[None], torch.from_numpy(weights)[None], input_size=SIZE, map_size=(32, 24), sigma=2.0
    )
    expected, expected_weights = loop_heat_maps(points, weights, SIZE, (32, 24), 2)
    assert np.allclose(maps[0], expected, atol=1e-6)
    assert (kept[0].numpy() == expected_weights).all()
    assert 0 < expected_weights.sum() < weights.sum()


def test_the_peak_stands_at_the_point() -> None:
    points = torch.tensor([[[40.0, 61.9], [0.0, 127.0]]])
    maps, _ = gaussian_heat_maps(points, torch.ones(1, 2), input_size=SIZE, map_size=(32, 24), sigma=2.0)
    assert maps[0, 0].argmax() == 15 * 24 + 10 and maps[0, 0].max() == 1
    # The last row's pixel 32 is outside, its Gaussian is not.
    assert 0 < maps[0, 1].max() < 1


@pytest.mark.parametrize("size", [(30, 40), (64, 50), (16, 16), (0, 64)])
def test_sizes_without_heat_maps_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"input_size {size[0]} x {size[1]}: expected multiples of 4 of at least 32"):
        check_input_size(size)
    check_input_size((256, 192))
