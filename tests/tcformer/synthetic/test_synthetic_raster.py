"""The z-buffer against a few triangles worked out by hand."""

from __future__ import annotations

import numpy as np

from tcformer.rasterizer import rasterize, transform_points, vertex_normals
from tcformer.synthetic.geometry import look_at, rotation, rotation_between


def test_the_nearer_triangle_wins_and_weights_are_perspective_correct() -> None:
    near = [[-1, -1, 2], [1, -1, 2], [-1, 1, 2]]
    far = [[-4, -4, 4], [4, -4, 8], [-4, 4, 4]]
    points = np.array(near + far, np.float32)
    faces = np.array([[3, 4, 5], [0, 1, 2]], np.int32)
    depth, face, weights = rasterize(points, faces, 8.0, 8.0, 8.0, 16, 16)
    assert face[5, 5] == 1
    np.testing.assert_allclose(depth[5, 5], 2.0, rtol=1e-6)
    assert face[1, 1] == 0
    a, b = weights[1, 1]
    at = a * points[3] + b * points[4] + (1 - a - b) * points[5]
    np.testing.assert_allclose(8 * at[:2] / at[2] + 8, [1.5, 1.5], atol=1e-4)
    np.testing.assert_allclose(depth[1, 1], at[2], rtol=1e-5)
    assert face[15, 15] == -1 and np.isinf(depth[15, 15])


def test_a_triangle_behind_the_camera_is_left_out() -> None:
    points = np.array([[-1, -1, -2], [1, -1, 2], [-1, 1, 2]], np.float32)
    _, face, _ = rasterize(points, np.array([[0, 1, 2]], np.int32), 8.0, 8.0, 8.0, 16, 16)
    assert (face == -1).all()


def test_normals_point_outwards_for_anticlockwise_faces() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    normals = vertex_normals(points, np.array([[0, 1, 2]], np.int32))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 3, atol=1e-7)


def test_the_camera_frames_what_it_looks_at() -> None:
    target = np.array([0.2, 1.0, 0.9])
    camera = look_at(target, 4.0, 10.0, (100, 200)).framed(300.0, np.zeros(2), np.array([100.0, 50.0]))
    np.testing.assert_allclose(camera.project(target), [100, 50], atol=1e-9)
    right, above = target + [0.1, 0, 0], target + [0, 0, 0.1]
    assert camera.project(right)[0] > 100 and camera.project(above)[1] < 50
    assert camera.position[2] > target[2]  # positive pitch looks down
    ray = camera.pixel_to_ray @ [100.0, 50.0, 1.0]
    np.testing.assert_allclose(camera.position + 4.0 * ray, target, atol=1e-9)
    matrix = np.column_stack([camera.rotation, camera.translation])
    moved = transform_points(target[None].astype(np.float32), matrix)
    np.testing.assert_allclose(moved[0], [0, 0, 4], atol=1e-5)


def test_rotations() -> None:
    np.testing.assert_allclose(rotation((0.0, 0.0, 1.0), 90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    a, b = np.array([1.0, 2.0, 3.0]), np.array([-2.0, 0.5, 1.0])
    turned = rotation_between(a, b) @ a
    np.testing.assert_allclose(turned / np.linalg.norm(turned), b / np.linalg.norm(b), atol=1e-12)
