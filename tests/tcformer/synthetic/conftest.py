"""A small generated dataset of each task, made once per session, and its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.generated import FACE, IMAGENET, MESH, SETS, WHOLEBODY


def _dataset(task: str) -> Any:
    @pytest.fixture(scope="session")
    def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp(task)
        SETS[task](folder)
        return folder

    return root


def _options(defaults: Any) -> Any:
    @pytest.fixture(scope="session")
    def options() -> Callable[..., Any]:
        """Makes options with some fields changed."""
        return partial(replace, defaults)

    return options


faces, imagenet, mesh, wholebody = map(_dataset, ("face", "imagenet", "mesh", "wholebody"))
face_options, imagenet_options, mesh_options, wholebody_options = map(_options, (FACE, IMAGENET, MESH, WHOLEBODY))
