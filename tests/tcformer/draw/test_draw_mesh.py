"""Bodies drawn over crops: position, shading and the colours of the sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tcformer import draw
from tcformer.body.camera import project
from tcformer.body.joints import SPIN_NAMES
from tcformer.draw.canvas import LEFT, RIGHT

SIZE = 48
GREY = np.full((SIZE, SIZE, 3), 90, np.uint8)
CAMERA = np.array([0.8, 0.1, -0.2])


def box(width: float, height: float, x: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A flat rectangle around (x, 0, 0)."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    return np.column_stack([corners + [x, 0], np.zeros(4)]), np.array([[0, 1, 2], [0, 2, 3]])


def test_silhouette_is_where_the_camera_projects_to() -> None:
    vertices, faces = box(0.5, 1.0)
    mask = draw.body_mask(vertices, faces, CAMERA, (SIZE, SIZE))
    corners = project(torch.tensor(vertices[None]), torch.tensor(CAMERA[None]))[0].numpy()
    low, high = (corners.min(0) + 1) * SIZE / 2, (corners.max(0) + 1) * SIZE / 2
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    # Whole numbers are the centres of pixels.
    assert columns[0] == np.ceil(low[0]) and columns[-1] == np.floor(high[0])
    assert rows[0] == np.ceil(low[1]) and rows[-1] == np.floor(high[1])
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_body_covers_its_silhouette_and_nothing_else() -> None:
    vertices, faces = box(0.6, 0.9)
    picture = draw.body(GREY, vertices, faces, CAMERA, scale=3)
    assert picture.shape == (3 * SIZE, 3 * SIZE, 3) and picture.dtype == np.uint8
    changed = (picture != 90).any(2)
    mask = np.kron(draw.body_mask(vertices, faces, CAMERA, (SIZE, SIZE)), np.ones((3, 3))).astype(bool)
    assert changed[mask].mean() > 0.99 and (changed & ~mask).mean() < 0.06


def test_the_light_comes_from_above() -> None:
    """A horizontal cylinder is brighter above than below."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.column_stack([0.4 * np.sin(angles), 0.4 * np.cos(angles)])
    vertices = np.concatenate([np.column_stack([np.full(40, x), ring]) for x in (-0.8, 0.8)])
    i, j = np.arange(40), (np.arange(40) + 1) % 40
    faces = np.concatenate([np.stack([i, j, i + 40], 1), np.stack([j, j + 40, i + 40], 1)])
    camera = np.array([0.9, 0.0, 0.0])
    pictures = [draw.body(GREY, vertices, order, camera, scale=1).astype(int) for order in (faces, faces[:, ::-1])]
    above, below = pictures[0][18, SIZE // 2].sum(), pictures[0][30, SIZE // 2].sum()
    assert above > below + 50
    np.testing.assert_array_equal(pictures[0], pictures[1])  # whatever the order of the triangles' corners


def test_nothing_is_drawn_for_a_body_behind_the_camera() -> None:
    vertices, faces = box(0.6, 0.9)
    camera = np.array([-0.5, 0.0, 0.0])
    assert not draw.body_mask(vertices, faces, camera, (SIZE, SIZE)).any()
    np.testing.assert_array_equal(draw.body(GREY, vertices, faces, camera, scale=1), GREY)


def joints() -> np.ndarray:
    """Left joints in the right half of the picture and right joints in the left: a person who faces the camera."""
    points = np.zeros((49, 3))
    points[:, 2] = 1
    for index, name in enumerate(SPIN_NAMES):
        points[index, 0] = 0.5 if "left" in name else -0.5 if "right" in name else 0.0
        points[index, 1] = -0.8 + 1.6 * (index - 25) / 24
    return points


def test_joints_have_their_sides_colours() -> None:
    picture = draw.body_joints(GREY, joints(), scale=2).astype(int)
    for colour, half in ((LEFT, np.s_[:, SIZE:]), (RIGHT, np.s_[:, :SIZE])):
        near = np.abs(picture - np.array(colour)).max(2) < 8
        assert near[half].sum() > 20
        assert near.sum() == near[half].sum()


def test_unknown_joints_are_not_drawn_and_truth_is_white() -> None:
    nothing = joints() * [1, 1, 0]
    np.testing.assert_array_equal(draw.body_joints(GREY, nothing, scale=1), GREY)
    shown = draw.body_joints(GREY, nothing, truth=joints(), scale=2)
    assert (shown.min(2) > 240).sum() > 40
    with pytest.raises(ValueError, match="points has shape"):
        draw.body_joints(GREY, joints()[:24])
    with pytest.raises(ValueError, match="truth has shape"):
        draw.body_joints(GREY, joints(), truth=np.full((49, 3), np.nan))


def test_invalid_bodies_raise() -> None:
    vertices, faces = box(0.5, 0.5)
    with pytest.raises(ValueError, match="expected a square"):
        draw.body(GREY[:40], vertices, faces, CAMERA)
    with pytest.raises(ValueError, match="not finite"):
        draw.body(GREY, vertices * np.nan, faces, CAMERA)


def test_a_body_lies_in_the_picture_where_it_lies_in_its_crop() -> None:
    vertices, faces = box(0.5, 1.0)
    picture = np.full((2 * SIZE, 3 * SIZE, 3), 90, np.uint8)
    left, top = 2 * SIZE - 20, 7
    person = draw.CroppedBody(vertices, CAMERA, (left + SIZE / 2, top + SIZE / 2), SIZE)
    drawn = draw.bodies(picture, [person], faces, scale=3)
    crop = draw.body(GREY, vertices, faces, CAMERA, scale=3)
    part = np.s_[3 * top : 3 * (top + SIZE), 3 * left : 3 * (left + SIZE)]
    np.testing.assert_array_equal(drawn[part], crop)
    drawn[part] = 90
    assert (drawn == 90).all()


def test_a_larger_person_is_in_front_and_people_may_leave_the_picture() -> None:
    vertices, faces = box(0.5, 1.0)
    near = draw.CroppedBody(vertices, CAMERA, (20.0, 20.0), 80.0)
    far = draw.CroppedBody(vertices, CAMERA, (22.0, 24.0), 40.0)
    one, other = (draw.bodies(GREY, people, faces, scale=2) for people in ([near, far], [far, near]))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one[30:40, 40:44], draw.bodies(GREY, [near], faces, scale=2)[30:40, 40:44])
    outside = draw.CroppedBody(vertices, CAMERA, (-500.0, 20.0), 40.0)
    np.testing.assert_array_equal(draw.bodies(GREY, [outside], faces), GREY)
    with pytest.raises(ValueError, match="not finite"):
        draw.bodies(GREY, [draw.CroppedBody(vertices * np.nan, CAMERA, (0.0, 0.0), 40.0)], faces)
