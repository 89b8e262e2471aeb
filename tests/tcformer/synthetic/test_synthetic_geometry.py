"""The camera and rotations of the generated scenes."""

from __future__ import annotations

import numpy as np

from tcformer.synthetic.geometry import bounds, look_at, rotation, rotation_between, transform_points


def test_the_camera_frames_what_it_looks_at() -> None:
    target = np.array([0.2, 1.0, 0.9])
    camera = look_at(target, distance=4.0, pitch_deg=10.0, size=(100, 200))
    camera = camera.zoomed(focal=300.0, seen=np.zeros(2), at=np.array([100.0, 50.0]))
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


def test_bounds_are_the_smallest_and_largest_coordinates() -> None:
    points = np.array([[1, -2, 3], [0, 5, -1], [2, 0, 0]], np.float32)
    np.testing.assert_array_equal(bounds(points), [[0, -2, -1], [2, 5, 3]])
