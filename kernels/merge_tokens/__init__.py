"""Averaging tokens by cluster."""

from kernels.merge_tokens.op import merge_tokens

__all__ = ["merge_tokens"]
