"""Depth-wise convolution of tokens on their feature map."""

from kernels.token_conv.op import token_conv

__all__ = ["token_conv"]
