"""Small layers: patch embedding, convolutions of tokens, stochastic depth; and the initialisation of layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcformer.models.ops import TokenPlan, map2token, token2map, token_conv


def init_weights(module: nn.Module) -> None:
    """Initialise a layer. Use with `module.apply(init_weights)`.

    Linear layers: truncated normal with standard deviation 0.02, bias 0. Convolutions: normal with variance
    2 / fan_out, bias 0. The 1x1 convolutions of tokens (`TokenConv.skip`) keep PyTorch's initialisation, as in the
    released code.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class PatchEmbed(nn.Module):
    """Overlapping patches: 7x7 convolution with stride 4, then LayerNorm."""

    def __init__(self, width: int, in_chans: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, kernel_size=7, stride=4, padding=3)
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Compute the features (B, H0 * W0, C) of the patches of images (B, in_chans, H, W), and (H0, W0)."""
        # Channels last, so that the conversion of the map to tokens copies nothing.
        m = self.proj(images.contiguous(memory_format=torch.channels_last))  # (B, C, H0, W0)
        x = m.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H0 * W0, C)
        return self.norm(x), (m.shape[2], m.shape[3])


class GridConv(nn.Module):
    """3x3 depth-wise convolution of tokens that are the cells of a grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(self, x: Tensor, plan: TokenPlan, gelu: bool = False, overwrite: bool = False) -> Tensor:
        """Convolve tokens (B, N, C) to (B, N, C), followed by GELU if `gelu`; `overwrite`: maybe in the place of x."""
        assert self.dwconv.bias is not None
        return token_conv(x, plan, self.dwconv.weight, self.dwconv.bias, gelu=gelu, overwrite=overwrite)


class TokenConv(nn.Conv2d):
    """3x3 convolution of the map of tokens, plus a 1x1 convolution of the tokens themselves (skip connection).

    With stride 2 the convolved map has half the sides, rounded up; it is read at the positions of all tokens. A
    depth-wise convolution has `in_channels == out_channels`, and its 1x1 convolution is a factor for each channel.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, depth_wise: bool = False) -> None:
        groups = in_channels if depth_wise else 1
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, groups=groups)
        self.skip = nn.Conv1d(in_channels, out_channels, kernel_size=1, bias=False, groups=groups)
        self.depth_wise = depth_wise

    def forward(  # type: ignore[override]
        self, x: Tensor, plan: TokenPlan, gelu: bool = False, overwrite: bool = False
    ) -> Tensor:
        """Convolve tokens (B, N, C_in) to (B, N, C_out), then GELU if `gelu`; `overwrite`: maybe in the place of x."""
        skip = self.skip.weight  # (C_out, C_in or 1, 1)
        if self.depth_wise:
            assert self.bias is not None
            return token_conv(x, plan, self.weight, self.bias, skip.flatten(), gelu=gelu, overwrite=overwrite)
        m = F.conv2d(token2map(x, plan), self.weight, self.bias, self.stride, padding=1)  # (B, C_out, H', W')
        y = map2token(m, plan.at((m.shape[2], m.shape[3])))  # (B, N, C_out)
        y = y + F.linear(x, skip.flatten(1))
        return F.gelu(y) if gelu else y


def has_hooks(*modules: nn.Module) -> bool:
    """Whether anything sees what these modules receive and return, and might keep it."""
    hooks = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks) or any(
        module._forward_hooks or module._forward_pre_hooks for module in modules
    )


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch of an image with the probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop branches of x (B, N, C). The kept ones are divided by 1 - rate."""
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        kept = torch.empty(x.shape[0], 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * (kept / keep)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"rate={self.rate:g}"
