"""The token operations, from the project's own package `kernels`."""

try:
    from kernels import (
        TokenPlan,
        attention,
        dpc_knn,
        map2token,
        merge_tokens,
        token2map,
        token_conv,
        upsample_tokens,
    )
    from kernels.backend import without_autocast
except ImportError as error:
    raise ImportError(
        f"TCFormer needs its own package 'kernels' but found none or another project's ({error}): run from the "
        "repository's root, or install it with 'pip install -e .', in an environment without the other one."
    ) from error

__all__ = [
    "TokenPlan",
    "attention",
    "dpc_knn",
    "map2token",
    "merge_tokens",
    "token2map",
    "token_conv",
    "upsample_tokens",
    "without_autocast",
]
