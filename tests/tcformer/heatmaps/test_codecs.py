"""Codecs: what is encoded is decoded, mirroring an image mirrors its heat maps, and mmpose's codec does not change."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tcformer.data.face.landmarks import FLIP
from tcformer.errors import UserError
from tcformer.heatmaps import CODECS, Codec, make_codec
from tcformer.heatmaps.decode import REFINEMENTS
from tcformer.heatmaps.names import CodecName, Decoding, Refinement
from tcformer.tasks.drawing import draw_points

SIZES = [(128, 96), (64, 64), (256, 192), (32, 32)]
SIGMAS = [1.0, 1.5, 2.0, 3.0]
SYMMETRIC: list[CodecName] = ["udp", "unbiased"]


def inside(size: tuple[int, int], count: int = 98, margin: float = 0.0) -> Tensor:
    """Random points (2, count, 2) in pixels of the input, `margin` pixels from its border, and four in the corners."""
    last = torch.tensor([size[1] - 1.0, size[0] - 1.0])
    points = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(0)) * (last - 2 * margin) + margin
    points[0, :4] = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]]) * (last - 2 * margin) + margin
    return points


def mirrored(points: Tensor, width: int) -> Tensor:
    """The points of the mirrored image."""
    return torch.stack([width - 1 - points[..., 0], points[..., 1]], -1)[:, FLIP.copy()]


def flip_tested(codec: Codec, points: Tensor) -> Tensor:
    """The averaged heat maps of a network that answers with the targets of an image and of its mirror image."""
    images = torch.zeros(len(points), 3, *codec.input_size)
    images[..., 0] = 1

    def network(seen: Tensor) -> Tensor:
        known = points if seen[0, 0, 0, 0] else mirrored(points, codec.input_size[1])
        return codec.encode(known, torch.ones(known.shape[:2]))[0]

    return codec.flip_test(network, images, FLIP)


def test_the_names_are_those_of_the_tables() -> None:
    assert set(CODECS) == set(typing.get_args(CodecName))
    assert set(REFINEMENTS) == set(typing.get_args(Refinement))
    assert {"auto", *REFINEMENTS} == set(typing.get_args(Decoding))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SYMMETRIC)
def test_an_unbiased_codec_decodes_what_it_encoded(name: CodecName, size: tuple[int, int], sigma: float) -> None:
    codec = make_codec(name, input_size=size, sigma=sigma)
    points = inside(size)
    maps, weights = codec.encode(points, torch.ones(points.shape[:2]))
    assert maps.shape == (2, 98, size[0] // 4, size[1] // 4) and (weights == 1).all()
    found, scores = codec.decode(maps)
    assert (found - points).abs().max() <= 0.01
    assert ((scores > 0) & (scores <= 1)).all()


@pytest.mark.parametrize("size", SIZES)
def test_mmpose_decodes_to_half_a_heat_map_pixel(size: tuple[int, int]) -> None:
    codec = make_codec("mmpose", input_size=size, sigma=2.0)
    points = inside(size, margin=4.0)
    error = (codec.decode(codec.encode(points, torch.ones(points.shape[:2]))[0])[0] - points).abs()
    assert error.max() <= 2 and error.mean() > 0.9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SYMMETRIC)
def test_mirroring_an_image_mirrors_its_heat_maps(name: CodecName, size: tuple[int, int]) -> None:
    codec = make_codec(name, input_size=size, sigma=1.5)
    points = inside(size)
    weights = torch.ones(points.shape[:2])
    maps, _ = codec.encode(points, weights)
    of_mirrored, _ = codec.encode(mirrored(points, size[1]), weights)
    assert (of_mirrored.flip(-1)[:, FLIP.copy()] - maps).abs().max() < 1e-5
    averaged = flip_tested(codec, points)
    assert (averaged - maps).abs().max() < 1e-5
    assert (codec.decode(averaged)[0] - points).abs().max() <= 0.01


def test_the_flip_test_of_mmpose_moves_points_to_the_right() -> None:
    """Its grid would need a shift by 3/4 of a heat-map pixel, and gets one by a whole pixel."""
    codec = make_codec("mmpose", input_size=(128, 96), sigma=2.0)
    points = inside((128, 96), margin=8.0)
    plain, _ = codec.decode(codec.encode(points, torch.ones(points.shape[:2]))[0])
    flipped, _ = codec.decode(flip_tested(codec, points))
    assert 0.15 < (flipped - plain)[..., 0].mean() < 0.35  # a whole heat-map pixel for a quarter of the points
    assert torch.equal(flipped[..., 1], plain[..., 1])


def test_grids_are_as_their_sources_define_them() -> None:
    """Where heat-map pixels 0 and 23 are on 96 input pixels."""
    ends = {"mmpose": [0.0, 92.0], "udp": [0.0, 95.0], "unbiased": [1.5, 93.5]}
    for name, expected in ends.items():
        codec = CODECS[name](input_size=(128, 96), sigma=2.0)
        maps = torch.zeros(1, 2, 32, 24)
        maps[0, 0, 9, 0] = maps[0, 1, 9, 23] = 1
        plain = replace(codec, refinement="quarter_pixel")
        assert plain.decode(maps)[0][0, :, 0].tolist() == pytest.approx(expected), name


def test_mmpose_gives_the_bits_of_version_0_1() -> None:
    """Encoding and decoding as in that version, whose functions are repeated here."""
    size, sigma = (128, 96), 2.0
    height, width = 32, 24
    random = torch.Generator().manual_seed(1)
    points = torch.rand(3, 98, 2, generator=random) * torch.tensor([220.0, 260.0]) - 60
    labelled = (torch.rand(3, 98, generator=random) < 0.8).float()
    scale = points.new_tensor([width / size[1], height / size[0]], dtype=torch.float32)
    peak = (points.float() * scale + 0.5).trunc()
    radius = 3 * sigma
    reached = ((peak - radius < peak.new_tensor([width, height])) & (peak + radius + 1 >= 0)).all(-1)

    def profile(centre: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, dtype=torch.float32) - centre.unsqueeze(-1)
        return torch.exp(-distance.square() / (2 * sigma**2)) * (distance.abs() <= radius)

    rows = profile(peak[..., 1], height) * (labelled * reached > 0).unsqueeze(-1)
    expected = rows.unsqueeze(-1) * profile(peak[..., 0], width).unsqueeze(-2)
    codec = make_codec("mmpose", input_size=size, sigma=sigma)
    maps, weights = codec.encode(points, labelled)
    assert torch.equal(maps, expected) and torch.equal(weights, labelled * reached)
    assert 0 < weights.sum() < labelled.sum()

    noisy = maps + 0.1 * torch.randn(maps.shape, generator=random)
    best, index = noisy.flatten(2).max(-1)
    x, y = index % width, index // width
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)

    def slope(step: int) -> Tensor:
        sides = [noisy.flatten(2).gather(2, torch.where(inner, index + d, 0)[..., None]) for d in (-step, step)]
        return torch.sign(sides[1] - sides[0]).squeeze(-1)

    moved = torch.stack([x, y], -1) + 0.25 * torch.stack([slope(1), slope(width)], -1)
    found, scores = codec.decode(noisy)
    assert torch.equal(found, 4 * torch.where(best[..., None] > 0, moved, -1.0)) and torch.equal(scores, best)


def test_another_decoding_keeps_grid_and_flip_test() -> None:
    size, sigma = (64, 64), 1.5
    points = inside(size, margin=20.0)
    for name, make in CODECS.items():
        codec = make(input_size=size, sigma=sigma)
        assert make_codec(name, input_size=size, sigma=sigma) == codec
        maps, _ = codec.encode(points, torch.ones(points.shape[:2]))
        for decoding in REFINEMENTS:
            other = make_codec(name, input_size=size, sigma=sigma, decoding=decoding)
            assert replace(other, refinement=codec.refinement) == codec
            assert (other.decode(maps)[0] - points).abs().max() <= 2.1  # half a heat-map pixel


@pytest.mark.parametrize("size", [(30, 40), (64, 50), (16, 16), (0, 64)])
def test_sizes_without_heat_maps_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"input_size {size[0]} x {size[1]}: expected multiples of 4 of at least 32"):
        make_codec("unbiased", input_size=size, sigma=2.0)


def test_points_outside_the_maps_have_no_weight() -> None:
    codec = make_codec("unbiased", input_size=(128, 96), sigma=2.0)
    points = torch.tensor([[[-26.0, 50.0], [-28.0, 50.0], [121.0, 50.0], [123.0, 50.0], [50.0, 50.0]]])
    maps, weights = codec.encode(points, torch.tensor([[1.0, 1, 1, 1, 0]]))
    assert weights.tolist() == [[1, 0, 1, 0, 0]]
    assert (maps[0, 1] == 0).all() and (maps[0, 3:] == 0).all() and maps[0, 0].max() > 0


@pytest.mark.parametrize("name", CODECS)
def test_predictions_are_drawn_where_the_codec_of_the_training_decodes_them(name: CodecName) -> None:
    codec = make_codec(name, input_size=(64, 64), sigma=1.0)
    points = inside((64, 64), margin=4.0)[:1]
    maps, _ = codec.encode(points, torch.ones(1, 98))
    sample = {"image": np.zeros((3, 64, 64), np.float32), "points": points[0].numpy(), "weights": np.ones(98)}
    drawn = draw_points(codec, sample, maps, [], "label", lambda truth, size: np.ones(size, bool))
    assert drawn.example.points is not None
    assert np.array_equal(drawn.example.points[:, :2], codec.decode(maps)[0][0].numpy())
    assert np.abs(drawn.example.points[:, :2] - points[0].numpy()).max() <= (2 if name == "mmpose" else 0.01)
