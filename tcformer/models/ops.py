"""The token operations of the project's package `kernels`."""

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
        f"TCFormer needs its own package 'kernels', but there is none, or one of another project ({error}): run from "
        "the root of the repository, or run 'pip install -e .' there in an environment without the other package."
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
