"""Depth-wise convolution of tokens through their map."""

from kernels.token_conv.op import token_conv

__all__ = ["token_conv"]
