"""A small generated dataset of each task, made once per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tcformer.synthetic import (
    GenerateFace,
    GenerateImagenet,
    GenerateMesh,
    GenerateWholebody,
    generate_face,
    generate_imagenet,
    generate_mesh,
    generate_wholebody,
)
from tests.generated import FACE, IMAGENET, MESH, WHOLEBODY


@pytest.fixture(scope="session")
def face_options() -> Callable[..., GenerateFace]:
    """Makes options with some fields changed."""
    return partial(replace, FACE)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    generate_face(root, FACE)
    return root


@pytest.fixture(scope="session")
def wholebody_options() -> Callable[..., GenerateWholebody]:
    """Makes options with some fields changed."""
    return partial(replace, WHOLEBODY)


@pytest.fixture(scope="session")
def imagenet_options() -> Callable[..., GenerateImagenet]:
    """Makes options with some fields changed."""
    return partial(replace, IMAGENET)


@pytest.fixture(scope="session")
def wholebody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wholebody")
    generate_wholebody(root, WHOLEBODY)
    return root


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    generate_imagenet(root, IMAGENET)
    return root


@pytest.fixture(scope="session")
def mesh_options() -> Callable[..., GenerateMesh]:
    """Makes options with some fields changed."""
    return partial(replace, MESH)


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mesh")
    generate_mesh(root, MESH)
    return root
