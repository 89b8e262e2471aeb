"""The flip test averages the predictions for an image and for its mirror image."""

import torch

from tcformer.data.wholebody.keypoints import FLIP
from tcformer.heatmaps import decode_heat_maps, flip_test, gaussian_heat_maps

SIZE, MAP = (128, 96), (32, 24)


def test_flip_test_averages_with_the_mirrored_answer() -> None:
    """A network that answers with Gaussians at known points of the image or of its mirror image."""
    points = torch.rand(1, 133, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([80.0, 110.0]) + 8
    points = (points / 4).floor() * 4
    weights = torch.ones(1, 133)
    mirrored = torch.stack([95 - points[..., 0], points[..., 1]], -1)[:, FLIP.copy()]

    def network(images: torch.Tensor) -> torch.Tensor:
        plain = bool(images[0, 0, 0, 0] > 0)
        return gaussian_heat_maps(points if plain else mirrored, weights, input_size=SIZE, map_size=MAP, sigma=2.0)[0]

    images = torch.zeros(1, 3, *SIZE)
    images[..., 0] = 1
    averaged, _ = decode_heat_maps(flip_test(network, images, FLIP))
    plain, _ = decode_heat_maps(network(images))
    assert (averaged - plain).abs().max() <= 0.5
