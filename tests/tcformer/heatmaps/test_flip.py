"""The flip test averages the predictions for an image and for its mirror image."""

import torch

from tcformer.data.wholebody.keypoints import FLIP
from tcformer.heatmaps import make_codec

SIZE = (128, 96)


def test_flip_test_averages_with_the_mirrored_answer() -> None:
    """A network that answers with mmpose's Gaussians at known points of the image or of its mirror image."""
    codec = make_codec("mmpose", input_size=SIZE, sigma=2.0)
    points = torch.rand(1, 133, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([80.0, 110.0]) + 8
    points = (points / 4).floor() * 4
    weights = torch.ones(1, 133)
    mirrored = torch.stack([95 - points[..., 0], points[..., 1]], -1)[:, FLIP.copy()]

    def network(images: torch.Tensor) -> torch.Tensor:
        plain = bool(images[0, 0, 0, 0] > 0)
        return codec.encode(points if plain else mirrored, weights)[0]

    images = torch.zeros(1, 3, *SIZE)
    images[..., 0] = 1
    averaged, _ = codec.decode(codec.flip_test(network, images, FLIP))
    plain, _ = codec.decode(network(images))
    assert (averaged - plain).abs().max() <= 2  # half a heat-map pixel
