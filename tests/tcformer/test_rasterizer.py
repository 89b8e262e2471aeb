"""The rasterizer against a few triangles worked out by hand."""

from __future__ import annotations

import numpy as np

from tcformer.rasterizer import orthographic_depth, rasterize, vertex_normals

CAMERA = {"focal": 8.0, "centre_x": 8.0, "centre_y": 8.0, "height": 16, "width": 16}


def test_the_nearer_triangle_wins_and_weights_are_perspective_correct() -> None:
    near = [[-1, -1, 2], [1, -1, 2], [-1, 1, 2]]
    far = [[-4, -4, 4], [4, -4, 8], [-4, 4, 4]]
    points = np.array(near + far, np.float32)
    faces = np.array([[3, 4, 5], [0, 1, 2]], np.int32)
    depth, face, weights = rasterize(points, faces, **CAMERA)
    assert face[5, 5] == 1
    np.testing.assert_allclose(depth[5, 5], 2.0, rtol=1e-6)
    assert face[1, 1] == 0
    a, b = weights[1, 1]
    at = a * points[3] + b * points[4] + (1 - a - b) * points[5]
    np.testing.assert_allclose(8 * at[:2] / at[2] + 8, [1.5, 1.5], atol=1e-4)
    np.testing.assert_allclose(depth[1, 1], at[2], rtol=1e-5)
    assert face[15, 15] == -1 and np.isinf(depth[15, 15])


def test_a_triangle_behind_the_camera_is_skipped() -> None:
    points = np.array([[-1, -1, -2], [1, -1, 2], [-1, 1, 2]], np.float32)
    _, face, _ = rasterize(points, np.array([[0, 1, 2]], np.int32), **CAMERA)
    assert (face == -1).all()


def test_orthographic_depth_is_linear_and_the_nearer_triangle_wins() -> None:
    tilted = [[0, 0, 1], [8, 0, 5], [0, 8, 1]]
    level = [[0, 0, 3], [8, 0, 3], [0, 8, 3]]
    points = np.array(tilted + level, np.float32)
    depth = orthographic_depth(points, np.array([[3, 4, 5], [0, 1, 2]], np.int32), size=8)
    np.testing.assert_allclose(depth[0, :4], [1.25, 1.75, 2.25, 2.75], rtol=1e-6)
    np.testing.assert_allclose(depth[0, 4:7], 3.0, rtol=1e-6)
    assert np.isinf(depth[7, 7])


def test_normals_point_outwards_for_anticlockwise_faces() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    normals = vertex_normals(points, np.array([[0, 1, 2]], np.int32))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 3, atol=1e-7)
