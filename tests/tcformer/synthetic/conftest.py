"""A small generated dataset of each task, with people of all kinds, made once per session."""

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

WHOLEBODY = GenerateWholebody(
    seed=3,
    train_images=8,
    val_images=4,
    image_size=(160, 192),
    people=(1, 3),
    figure_height=(0.6, 0.95),
    yaw_deg=35.0,
    back_view_fraction=0.2,
    camera_pitch_deg=6.0,
    pose_variety=1.0,
    crop_fraction=0.3,
    occluder_fraction=0.3,
    crowd_fraction=0.3,
    clutter=0.6,
    photo_fraction=0.3,
    light_range=(0.8, 1.2),
    supersampling=2,
    jpeg_quality=90,
)

IMAGENET = GenerateImagenet(
    seed=3,
    train_images_per_class=2,
    val_images_per_class=1,
    image_size=(64, 64),
    yaw_deg=15.0,
    camera_pitch_deg=3.0,
    clutter=0.5,
    photo_fraction=0.3,
    light_range=(0.9, 1.1),
    supersampling=1,
    jpeg_quality=90,
)

FACE = GenerateFace(
    seed=3,
    train_images=8,
    test_images=6,
    image_size=(112, 128),
    face_size=(0.5, 0.7),
    yaw_deg=12.0,
    large_yaw_deg=(35.0, 60.0),
    pitch_deg=6.0,
    roll_deg=6.0,
    pose_fraction=0.2,
    expression_fraction=0.2,
    illumination_fraction=0.2,
    make_up_fraction=0.2,
    occlusion_fraction=0.2,
    blur_fraction=0.2,
    clutter=0.5,
    photo_fraction=0.3,
    light_range=(0.9, 1.1),
    supersampling=2,
    jpeg_quality=90,
)

MESH = GenerateMesh(
    seed=3,
    train_images=6,
    test_images=27,
    image_size=(72, 64),
    figure_height=(0.7, 0.9),
    yaw_deg=40.0,
    back_view_fraction=0.2,
    camera_pitch_deg=6.0,
    pose_variety=1.0,
    shape_variety=1.0,
    occluder_fraction=0.2,
    clutter=0.5,
    photo_fraction=0.3,
    light_range=(0.8, 1.2),
    supersampling=1,
    jpeg_quality=90,
)


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
