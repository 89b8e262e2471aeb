"""The loss of heat maps is that of the published loop over points."""

import torch
from torch import nn

from tcformer.heatmaps import heat_map_loss


def test_loss_is_that_of_the_published_loop() -> None:
    random = torch.Generator().manual_seed(0)
    maps, targets = (torch.randn(3, 5, 4, 6, generator=random) for _ in range(2))
    weights = torch.tensor([[1.0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    loop = sum(
        nn.functional.mse_loss(maps[:, k] * weights[:, k, None, None], targets[:, k] * weights[:, k, None, None])
        for k in range(5)
    )
    loss = heat_map_loss(maps, targets, weights)
    assert torch.allclose(loss.mean(), loop / 5)
    assert loss[1] == 0
