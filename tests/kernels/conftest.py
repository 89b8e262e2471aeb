"""Tests of the backend "native" need a C++ compiler."""

import pytest

from kernels import native


@pytest.fixture(autouse=True)
def _skip_without_compiler(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("backend") == "native" and not native.available():
        pytest.skip(native.reason())
