"""Tests of the backend "native" are skipped where there is no C++ compiler."""

import pytest

from kernels import native


@pytest.fixture(autouse=True)
def _skip_without_compiler(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("backend") == "native" and not native.available():
        pytest.skip(native.reason())
