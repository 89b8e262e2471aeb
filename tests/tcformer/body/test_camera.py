"""The weak-perspective camera is SPIN's."""

import torch

from tcformer.body.camera import project


def test_camera_is_spins() -> None:
    """A pinhole of a focal length of 5000 pixels at 2 f / (224 s), for a crop of 224."""
    points = torch.randn(5, 20, 3, generator=torch.Generator().manual_seed(0))
    camera = torch.tensor([[0.9, 0.1, -0.2], [0.3, 0.0, 0.0], [1.7, 0.5, 0.5], [1.0, -1.0, 0.0], [0.5, 0.0, 0.9]])
    moved = points + torch.stack([camera[:, 1], camera[:, 2], 2 * 5000 / (224 * camera[:, 0])], 1)[:, None]
    torch.testing.assert_close(project(points, camera), 5000 * moved[..., :2] / moved[..., 2:] / 112)
