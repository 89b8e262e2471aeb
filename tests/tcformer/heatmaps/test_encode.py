"""Encoding points as heat maps with mmpose's codec: the published loop, and the position of the peak."""

import numpy as np
import torch

from tcformer.heatmaps import make_codec

SIZE = (128, 96)
MMPOSE = make_codec("mmpose", input_size=SIZE, sigma=2.0)


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
    maps, kept = MMPOSE.encode(torch.from_numpy(points)[None], torch.from_numpy(weights)[None])
    expected, expected_weights = loop_heat_maps(points, weights, SIZE, (32, 24), 2)
    assert np.allclose(maps[0], expected, atol=1e-6)
    assert (kept[0].numpy() == expected_weights).all()
    assert 0 < expected_weights.sum() < weights.sum()


def test_the_peak_stands_at_the_point() -> None:
    points = torch.tensor([[[40.0, 61.9], [0.0, 127.0]]])
    maps, _ = MMPOSE.encode(points, torch.ones(1, 2))
    assert maps[0, 0].argmax() == 15 * 24 + 10 and maps[0, 0].max() == 1
    # The last row's pixel 32 is outside, its Gaussian is not.
    assert 0 < maps[0, 1].max() < 1
