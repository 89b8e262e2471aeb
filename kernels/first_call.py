"""Make the first call of an operator fast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_COMPILER: Final = "torch._dynamo"
_MARK: Final = "__dynamo_disable"


def avoid_compiler_import() -> None:
    """Keep the first call of the operators that are defined so far from importing PyTorch's compiler.

    PyTorch wraps every custom operator so that its compiler does not trace into it, and imports the compiler for that
    at the operator's first call. That takes about as long as `import torch`. Without the compiler in the process there
    is nothing to wrap. As soon as something else imports it, the operators are wrapped as usual.

    The attributes are PyTorch's own (torch/_compile.py, `_disable_dynamo`). In versions without them nothing changes.
    """
    if _COMPILER in sys.modules:
        return
    import torch._library.custom_ops

    for name, definition in getattr(torch._library.custom_ops, "OPDEFS", {}).items():
        if name.startswith("tcformer::"):
            for function in getattr(definition, "_backend_fns", {}).values():
                inner = getattr(function, "__wrapped__", None)
                if inner is not None and not hasattr(inner, _MARK):
                    setattr(inner, _MARK, _without_compiler(inner))


def _without_compiler(function: Callable[_P, _R]) -> Callable[_P, _R]:
    def call(*arguments: _P.args, **options: _P.kwargs) -> _R:
        disable = getattr(sys.modules.get(_COMPILER), "disable", None)  # None also while it is being imported
        if disable is None:
            return function(*arguments, **options)
        delattr(function, _MARK)  # PyTorch sets its own at the next call
        disabled: Callable[_P, _R] = disable(function)
        return disabled(*arguments, **options)

    return call
