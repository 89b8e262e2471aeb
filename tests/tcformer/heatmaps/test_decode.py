"""Decoding heat maps: the published loop, and the quarter offset."""

import numpy as np
import torch

from tcformer.heatmaps import decode_heat_maps


def loop_decode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published loop: argmax, quarter offset, -1 where nothing is above 0."""
    people, points, height, width = maps.shape
    where = np.full((people, points, 2), -1.0)
    best = maps.reshape(people, points, -1).max(-1)
    for n in range(people):
        for k in range(points):
            if best[n, k] <= 0:
                continue
            y, x = divmod(int(maps[n, k].argmax()), width)
            where[n, k] = x, y
            if 1 < x < width - 1 and 1 < y < height - 1:
                slope = [
                    maps[n, k, y, x + 1] - maps[n, k, y, x - 1],
                    maps[n, k, y + 1, x] - maps[n, k, y - 1, x],
                ]
                where[n, k] += np.sign(slope) * 0.25
    return where, best


def test_decoding_is_the_published_loop() -> None:
    maps = torch.randn(3, 50, 8, 6, generator=torch.Generator().manual_seed(0))
    maps[0, 0] = -1
    maps[0, 1] = 0
    points, scores = decode_heat_maps(maps)
    expected, best = loop_decode(maps.numpy())
    assert np.allclose(points, expected) and np.allclose(scores, best)
    assert points[0, :2].tolist() == [[-1, -1], [-1, -1]]


def test_a_quarter_offset_halves_the_error() -> None:
    true = torch.tensor([10.3, 7.8])
    grid = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="xy"), -1)
    maps = torch.exp(-(grid - true).square().sum(-1) / 8)[None, None]
    points, _ = decode_heat_maps(maps)
    assert points[0, 0].tolist() == [10.25, 7.75]
