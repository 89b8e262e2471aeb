"""The flip test: average the predictions for an image and for its mirror image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def flip_test(model: Callable[[Tensor], Tensor], images: Tensor, flip: NDArray[np.int64], shift: int) -> Tensor:
    """Average the heat maps of images and of their mirror images.

    Args:
        model: maps images (B, 3, H, W) to heat maps (B, K, H / 4, W / 4).
        images: (B, 3, H, W).
        flip: (K,) point i of a mirrored image is point `flip[i]` of the original.
        shift: heat-map pixels by which the mirrored maps, mirrored back, are shifted to the right.

    Returns:
        (B, K, H / 4, W / 4) float32.
    """
    maps = model(images).float()
    mirrored = model(images.flip(-1)).float()[:, torch.tensor(flip, device=images.device)].flip(-1)
    if shift:
        mirrored = torch.cat([mirrored[..., :shift], mirrored[..., :-shift]], -1)
    return 0.5 * (maps + mirrored)
