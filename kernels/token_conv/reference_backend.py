"""Token convolution step by step: the specification."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels.token_map import TokenPlan, map2token, token2map


def token_conv(
    x: Tensor, plan: TokenPlan, weight: Tensor, bias: Tensor, skip: Tensor | None, gelu: bool, backend: str | None
) -> Tensor:
    """See `kernels.token_conv`; `backend` is that of `token2map` and `map2token`."""
    m = F.conv2d(token2map(x, plan, backend=backend), weight, bias, padding=1, groups=x.shape[2])  # (B, C, H, W)
    y = map2token(m, plan, backend=backend)  # (B, N, C)
    if skip is not None:
        y = y + skip * x
    return F.gelu(y) if gelu else y
