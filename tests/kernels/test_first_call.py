"""The first call of an operator imports no compiler."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from kernels import first_call


def test_operators_are_wrapped_for_the_compiler_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: int) -> int:
        return x + 1

    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    call = first_call._without_compiler(function)
    setattr(function, first_call._MARK, call)
    assert call(1) == 2 and hasattr(function, first_call._MARK)
    wrapped: list[object] = []
    compiler = SimpleNamespace(disable=lambda inner: wrapped.append(inner) or inner)
    monkeypatch.setitem(sys.modules, "torch._dynamo", compiler)
    assert call(2) == 3 and wrapped == [function] and not hasattr(function, first_call._MARK)


@pytest.mark.slow
def test_a_network_runs_without_the_compiler() -> None:
    code = (
        "import sys, torch, tcformer; tcformer.create_model('tcformer_nano', 'wholebody')(torch.zeros(1, 3, 64, 64)); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
