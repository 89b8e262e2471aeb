"""Rasterization of triangle meshes: perspective and orthographic depth buffers, and vertex normals (numba).

Fast-math is off, so that the same input gives the same bytes. All functions run on one thread, because images are
drawn in parallel by processes.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@numba.njit(cache=True)
def rasterize(
    points: Float32, faces: Int32, focal: float, centre_x: float, centre_y: float, height: int, width: int
) -> tuple[Float32, Int32, Float32]:
    """Rasterize triangles as a pinhole camera sees them.

    The centre of pixel (row, column) is at (column + 0.5, row + 0.5). A triangle with a corner behind the camera is
    skipped.

    Args:
        points: (V, 3) vertices in camera space, metres: x right, y down, z forward.
        faces: (F, 3) vertex indices of the triangles.
        focal: focal length, pixels.
        centre_x: x of the principal point, pixels.
        centre_y: y of the principal point, pixels.
        height: height of the result, pixels.
        width: width of the result, pixels.

    Returns:
        The depth (height, width), metres, inf where there is no triangle; the index of the face that each pixel
        shows (height, width), -1 for none; and the perspective-correct barycentric weights of that face's first two
        corners (height, width, 2).
    """
    near = 0.05
    depth = np.full((height, width), np.inf, np.float32)
    face_of_pixel = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    count = points.shape[0]
    px = np.empty(count, np.float32)
    py = np.empty(count, np.float32)
    inverse = np.empty(count, np.float32)
    for i in range(count):
        z = points[i, 2]
        if z > near:
            inverse[i] = 1.0 / z
            px[i] = focal * points[i, 0] / z + centre_x
            py[i] = focal * points[i, 1] / z + centre_y
        else:
            inverse[i] = -1.0
    for k in range(faces.shape[0]):
        a, b, c = faces[k, 0], faces[k, 1], faces[k, 2]
        if inverse[a] <= 0 or inverse[b] <= 0 or inverse[c] <= 0:
            continue
        ax, ay, bx, by, cx, cy = px[a], py[a], px[b], py[b], px[c], py[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        if x0 > x1 or y0 > y1:
            continue
        inverse_area = np.float32(1.0) / area
        for row in range(y0, y1 + 1):
            y = np.float32(row + 0.5)
            for column in range(x0, x1 + 1):
                x = np.float32(column + 0.5)
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * inverse_area
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * inverse_area
                wc = np.float32(1.0) - wa - wb
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                qa, qb, qc = wa * inverse[a], wb * inverse[b], wc * inverse[c]
                z = np.float32(1.0) / (qa + qb + qc)
                if z < depth[row, column]:
                    depth[row, column] = z
                    face_of_pixel[row, column] = k
                    weights[row, column, 0] = qa * z
                    weights[row, column, 1] = qb * z
    return depth, face_of_pixel, weights


@numba.njit(cache=True)
def orthographic_depth(points: Float32, faces: Int32, size: int) -> Float32:
    """Depth map of triangles under orthographic projection.

    Args:
        points: (V, 3) vertices: x and y in pixels of the map, z the depth in metres.
        faces: (F, 3) vertex indices of the triangles.
        size: side of the map, pixels.

    Returns:
        (size, size) metres, inf where there is no triangle.
    """
    depth = np.full((size, size), np.inf, np.float32)
    for k in range(faces.shape[0]):
        a, b, c = faces[k, 0], faces[k, 1], faces[k, 2]
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        x1 = min(size - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        y1 = min(size - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        inverse_area = np.float32(1.0) / area
        for row in range(y0, y1 + 1):
            y = np.float32(row + 0.5)
            for column in range(x0, x1 + 1):
                x = np.float32(column + 0.5)
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * inverse_area
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * inverse_area
                wc = np.float32(1.0) - wa - wb
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                z = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                if z < depth[row, column]:
                    depth[row, column] = z
    return depth


@numba.njit(cache=True)
def vertex_normals(points: Float32, faces: Int32) -> Float32:
    """Unit normals (V, 3) of vertices (V, 3): the area-weighted mean normal of the faces (F, 3) at each vertex."""
    normals = np.zeros_like(points)
    for k in range(faces.shape[0]):
        a, b, c = faces[k, 0], faces[k, 1], faces[k, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in range(3):
            i = faces[k, corner]
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(points.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0:
            normals[i, 0] /= length
            normals[i, 1] /= length
            normals[i, 2] /= length
    return normals
