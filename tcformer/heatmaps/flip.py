"""The flip test: averaging with the prediction for the mirrored image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def flip_test(model: Callable[[Tensor], Tensor], images: Tensor, flip: NDArray[np.int64]) -> Tensor:
    """Mean of the heat maps of images and of their mirror images.

    The mirrored maps are moved right by one pixel, because mirroring an image about its middle moves the grid
    of a map of lower resolution against it.

    Args:
        model: images (B, 3, H, W) -> heat maps (B, K, H / 4, W / 4).
        flip: (K,) which point of a mirrored image is which of the original.
    """
    maps = model(images).float()
    mirrored = model(images.flip(-1)).float()[:, torch.tensor(flip, device=images.device)].flip(-1)
    mirrored = torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1)
    return 0.5 * (maps + mirrored)
