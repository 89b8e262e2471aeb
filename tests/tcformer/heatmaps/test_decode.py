"""Decoding heat maps: the published loop, sub-pixel positions, and maps that are no Gaussians."""

import numpy as np
import pytest
import torch

from tcformer.errors import UserError
from tcformer.heatmaps import make_codec
from tcformer.heatmaps.decode import REFINEMENTS, decode_heat_maps
from tcformer.heatmaps.names import Refinement


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


def gaussian(x: float, y: float, sigma: float = 2.0, height: int = 32, width: int = 24) -> torch.Tensor:
    """The heat map (1, 1, height, width) of a point in heat-map pixels."""
    grid = torch.stack(torch.meshgrid(torch.arange(float(width)), torch.arange(float(height)), indexing="xy"), -1)
    return torch.exp(-(grid - torch.tensor([x, y])).square().sum(-1) / (2 * sigma**2))[None, None]


def test_decoding_is_the_published_loop() -> None:
    maps = torch.randn(3, 50, 8, 6, generator=torch.Generator().manual_seed(0))
    maps[0, 0] = -1
    maps[0, 1] = 0
    points, scores = decode_heat_maps(maps, refinement="quarter_pixel", sigma=2.0)
    expected, best = loop_decode(maps.numpy())
    assert np.allclose(points, expected) and np.allclose(scores, best)
    assert points[0, :2].tolist() == [[-1, -1], [-1, -1]]


def test_a_quarter_offset_halves_the_error() -> None:
    points, _ = decode_heat_maps(gaussian(10.3, 7.8), refinement="quarter_pixel", sigma=2.0)
    assert points[0, 0].tolist() == [10.25, 7.75]


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("x", [-0.5, -0.375, 0.0, 0.49, 10.5, 22.51, 23.0, 23.5])
@pytest.mark.parametrize("y", [-0.4, 0.3, 15.25, 31.0, 31.4])
@pytest.mark.parametrize("refinement", ["taylor", "dark"])
def test_a_gaussian_is_decoded_exactly_up_to_the_border(
    refinement: Refinement, x: float, y: float, sigma: float
) -> None:
    points, _ = decode_heat_maps(0.3 * gaussian(x, y, sigma), refinement=refinement, sigma=sigma)
    assert points[0, 0].tolist() == pytest.approx([x, y], abs=1e-3)


def test_the_taylor_step_is_exact_for_a_slanting_gaussian() -> None:
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    x, y = columns - 10.3, rows - 20.1
    maps = torch.exp(-(0.2 * x * x + 0.15 * y * y - 0.1 * x * y))[None, None]
    points, _ = decode_heat_maps(maps, refinement="taylor", sigma=2.0)
    assert points[0, 0].tolist() == pytest.approx([10.3, 20.1], abs=1e-3)


def test_smoothing_lowers_the_error_of_noisy_maps() -> None:
    random = torch.Generator().manual_seed(0)
    true = torch.rand(1, 200, 2, generator=random) * 32 + 16
    codec = make_codec("unbiased", input_size=(64, 64), sigma=2.0)
    maps, _ = codec.encode(true, torch.ones(1, 200))
    noisy = maps + 0.02 * torch.randn(maps.shape, generator=random)
    error = {
        name: (make_codec("unbiased", input_size=(64, 64), sigma=2.0, decoding=name).decode(noisy)[0] - true)
        .norm(dim=-1)
        .mean()
        for name in REFINEMENTS
    }
    assert error["dark"] < 0.7 * error["taylor"] < 0.7 * error["quarter_pixel"]


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_any_map_gives_a_point_at_its_largest_pixel(refinement: Refinement) -> None:
    """Noise, peaks on borders, plateaus, negative values and infinities below the maximum."""
    maps = torch.randn(2, 300, 8, 6, generator=torch.Generator().manual_seed(0))
    maps[0, 0] = -1  # nothing above 0
    maps[0, 1] = 0
    maps[0, 2] = 0.5  # a plateau
    maps[0, 3] = -1
    maps[0, 3, 0, 5] = 1e-37  # one tiny peak in a corner
    maps[0, 4] = -torch.inf
    maps[0, 4, 3, 3:5] = 2.0  # a plateau of two pixels
    maps[0, 5] = 1e30
    maps[0, 6] = torch.arange(48.0).view(8, 6)  # a slope up to the corner
    maps[0, 7] = maps[0, 7].abs() * 1e-6
    points, scores = decode_heat_maps(maps, refinement=refinement, sigma=1.0)
    assert points.isfinite().all()
    assert points[0, :2].tolist() == [[-1, -1], [-1, -1]] and scores[0, :2].tolist() == [-1, 0]
    index = maps.flatten(2).argmax(-1)
    largest = torch.stack([index % 6, index // 6], -1)
    found = scores > 0
    assert found.sum() > 590
    assert ((points - largest).abs()[found] <= (1.5 if refinement == "dark" else 0.5)).all()
    assert ((points[found] >= -0.5) & (points[found] <= torch.tensor([5.5, 7.5]))).all()
    if refinement == "taylor":
        assert points[0, 2].tolist() == [0, 0]
        assert points[0, 4].tolist() == [3.5, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_low_precision_is_decoded_in_float32(refinement: Refinement, dtype: torch.dtype) -> None:
    maps = gaussian(10.3, 7.8)
    exact, _ = decode_heat_maps(maps, refinement=refinement, sigma=2.0)
    points, scores = decode_heat_maps(maps.to(dtype), refinement=refinement, sigma=2.0)
    assert points.dtype == scores.dtype == torch.float32
    assert (points - exact).abs().max() < 0.03
    with torch.autocast("cpu", torch.bfloat16):  # as validations of a training in bf16
        assert torch.equal(decode_heat_maps(maps, refinement=refinement, sigma=2.0)[0], exact)


@pytest.mark.parametrize("refinement", REFINEMENTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_bad_pixel_is_refused(refinement: Refinement, value: float) -> None:
    maps = torch.zeros(2, 3, 8, 6)
    decode_heat_maps(maps, refinement=refinement, sigma=1.0)
    maps[1, 2, 7, 5] = value
    with pytest.raises(UserError, match="the network's heat maps contain NaN"):
        decode_heat_maps(maps, refinement=refinement, sigma=1.0)
