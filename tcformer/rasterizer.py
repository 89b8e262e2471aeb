"""Triangles to pixels: a z-buffer, vertex normals and a shadow map, compiled by numba.

No fast-math: the same input gives the same bytes. All kernels run on one thread, because pictures are made in
parallel by processes.
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
    """Draw triangles seen by a pinhole camera.

    points (V, 3): camera space, metres, x right, y down, z forward. faces (F, 3). Pixel (row, column) has its
    centre at (column + 0.5, row + 0.5). Triangles with a corner behind the camera are left out.
    Returns depth (height, width) in metres, inf where nothing is; the face of each pixel, -1 for none; and
    the perspective-correct barycentric weights of the face's first two corners (height, width, 2).
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
def parallel_depth(points: Float32, faces: Int32, size: int) -> Float32:
    """Depth map (size, size) of triangles under parallel projection.

    points (V, 3): x and y in pixels of the map, z the depth in metres; inf where nothing is.
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
def transform_points(points: Float32, matrix: NDArray[np.float64]) -> Float32:
    """Points (V, 3) moved by a matrix (3, 4): rotation or scale, and a shift."""
    moved = np.empty_like(points)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for row in range(3):
            moved[i, row] = matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z + matrix[row, 3]
    return moved


@numba.njit(cache=True)
def bounds(points: Float32) -> NDArray[np.float64]:
    """Smallest and largest coordinates (2, 3) of points (V, 3)."""
    result = np.empty((2, 3))
    for axis in range(3):
        low = high = points[0, axis]
        for i in range(points.shape[0]):
            low = min(low, points[i, axis])
            high = max(high, points[i, axis])
        result[0, axis], result[1, axis] = low, high
    return result


@numba.njit(cache=True)
def vertex_normals(points: Float32, faces: Int32) -> Float32:
    """Unit normals (V, 3): the area-weighted mean over the faces of each vertex."""
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
