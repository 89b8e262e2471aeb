"""The body: shapes, expressions, joints and skinning of one template mesh, and its 133 key points.

15,114 vertices of MakeHuman's base mesh, 104 bones with fingers and toes, 30 principal components of shape
with a bank of 480 bodies to draw from, 52 facial expressions (see assets/README.md). Rest position: metres,
z up, facing -y, the person's left at +x, arms hanging 45 degrees out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from tcformer.rasterizer import vertex_normals

ASSETS = Path(__file__).parent / "assets"

BODY, EYES, HAIR, SKIRT, TEETH, TONGUE = range(6)
"""Groups of faces: `BodyModel.face_group`."""

BODY_POINTS, FOOT_POINTS, FACE_POINTS = slice(0, 17), slice(17, 23), slice(23, 91)
LEFT_HAND_POINTS, RIGHT_HAND_POINTS = slice(91, 112), slice(112, 133)
"""Where the parts lie in the 133 key points (COCO-WholeBody V1.0)."""

SKIN_VERTICES = 13_380
"""The first vertices are the body's skin; eyes, hair, skirt, teeth, tongue and finger tip markers follow."""

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class SurfacePoints:
    """Points fixed to the mesh: corners (..., 3) of a triangle and their weights (..., 3)."""

    triangle: NDArray[np.int64]
    barycentric: Float32

    def on(self, vertices: NDArray) -> NDArray:
        """Positions (..., 3) on a mesh (V, 3)."""
        return (vertices[self.triangle] * self.barycentric[..., None]).sum(-2)


@dataclass(frozen=True)
class Shape:
    """A body in rest position."""

    vertices: Float32
    joints: NDArray[np.float64]


@numba.njit(cache=True)
def _weighted_sum(start: Float32, terms: Float32, weights: Float32) -> Float32:
    """start (n,) + weights (k,) @ terms (k, n), summed in a fixed order."""
    result = start.copy()
    for k in range(terms.shape[0]):
        for i in range(result.shape[0]):
            result[i] += weights[k] * terms[k, i]
    return result


@numba.njit(cache=True)
def blend(vertices: Float32, bones: NDArray, weights: Float32, transforms: Float32) -> Float32:
    """Linear blend skinning: each vertex moves with the weighted mean of its bones' transforms (B, 3, 4)."""
    posed = np.empty_like(vertices)
    matrix = np.empty((3, 4), np.float32)
    for v in range(vertices.shape[0]):
        matrix[:] = 0.0
        for k in range(bones.shape[1]):
            weight = weights[v, k]
            if weight == 0.0:  # sorted: the rest is zero as well
                break
            bone = bones[v, k]
            for row in range(3):
                for column in range(4):
                    matrix[row, column] += weight * transforms[bone, row, column]
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        for row in range(3):
            posed[v, row] = matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z + matrix[row, 3]
    return posed


@numba.njit(cache=True)
def chain(joints: NDArray, parents: NDArray, rotations: NDArray) -> NDArray[np.float64]:
    """World transforms (B, 3, 4) of bones that turn by rotations (B, 3, 3) about their joints (B, 3)."""
    result = np.zeros((joints.shape[0], 3, 4))
    shift = np.empty(3)
    for bone in range(joints.shape[0]):
        for row in range(3):
            shift[row] = joints[bone, row]
            for k in range(3):
                shift[row] -= rotations[bone, row, k] * joints[bone, k]
        parent = parents[bone]
        if parent < 0:
            result[bone, :, :3] = rotations[bone]
            result[bone, :, 3] = shift
            continue
        for row in range(3):
            result[bone, row, 3] = result[parent, row, 3]
            for k in range(3):
                result[bone, row, 3] += result[parent, row, k] * shift[k]
                for column in range(3):
                    result[bone, row, column] += result[parent, row, k] * rotations[bone, k, column]
    return result


@numba.njit(cache=True)
def _regress(rows: NDArray, columns: NDArray, weights: Float32, vertices: Float32) -> NDArray[np.float64]:
    """Key points (23, 3) as weighted means of vertices."""
    points = np.zeros((23, 3))
    for k in range(rows.shape[0]):
        for axis in range(3):
            points[rows[k], axis] += weights[k] * vertices[columns[k], axis]
    return points


class BodyModel:
    """The template and everything that is fixed to it. Use `load_body()`, which reads the assets once."""

    def __init__(self, folder: Path = ASSETS) -> None:
        """Read the assets from a folder: body.npz, ibug68.json, wflw98.json."""
        with np.load(folder / "body.npz") as file:
            data = {name: file[name] for name in file.files}
        self.mean: Float32 = data["mean"]
        self.shape_components = data["shape_components"].astype(np.float32).reshape(len(data["shape_components"]), -1)
        self.joints = data["joints"].astype(float)
        self.joint_components = data["joint_components"].astype(float)
        self.shape_bank: Float32 = data["shape_bank"]
        self._expressions = data["expressions"].astype(np.float32)
        self._expression_vertices = data["expression_vertices"].astype(np.int64)
        self.expression_names = [str(name) for name in data["expression_names"]]
        weights = data["bone_weights"].astype(np.float32)
        self.bone_weights = weights / weights.sum(1, keepdims=True)
        self.bone_indices = data["bone_indices"]
        self.bone_parents = data["bone_parents"].astype(np.int64)
        self.bone = {str(name): index for index, name in enumerate(data["bone_names"])}
        self.faces: Int32 = data["faces"].astype(np.int32)
        self.face_group: NDArray[np.uint8] = data["face_group"]
        self.keypoint_regressor = (
            data["keypoint_rows"].astype(np.int64),
            data["keypoint_vertices"].astype(np.int64),
            data["keypoint_weights"],
        )
        self._fingertips = data["fingertip_vertices"].astype(np.int64)
        self.arm_position = data["arm_position"].astype(np.float32)
        self.leg_position = data["leg_position"].astype(np.float32)
        parts = data["part_weights"].astype(np.float32)
        self.part_weights: dict[str, Float32] = {str(n): parts[:, i] for i, n in enumerate(data["part_names"])}
        self.lip_or_ear = data["lip_or_ear"].astype(np.float32)
        self.hair = data["hair"].astype(np.float32)
        self.waist_height, self.neck_height = float(data["waist_height"]), float(data["neck_height"])
        base = np.full(int(data["base_vertices"].max()) + 1, -1)
        base[data["base_vertices"]] = np.arange(len(self.mean))
        self.face68 = _read_landmarks(folder / "ibug68.json", base)
        self.face98 = _read_landmarks(folder / "wflw98.json", base)
        self._jaw = SurfacePoints(
            data["jaw_candidates_tri"].astype(np.int64), data["jaw_candidates_bary"].astype(np.float32)
        )

    @cached_property
    def mean_normals(self) -> Float32:
        """Unit normals (V, 3) of the mean body."""
        return vertex_normals(self.mean, self.faces)

    def shape(self, coefficients: Float32, expression: Mapping[str, float]) -> Shape:
        """A body in rest position. coefficients (30,): in metres along the principal components;
        expression: name -> strength, 0 to 1."""
        coefficients = coefficients.astype(np.float32)
        vertices = _weighted_sum(self.mean.reshape(-1), self.shape_components, coefficients).reshape(-1, 3)
        for name, strength in expression.items():
            offset = self._expressions[self.expression_names.index(name)]
            vertices[self._expression_vertices] += np.float32(strength) * offset
        joints = self.joints + (coefficients[:, None, None].astype(float) * self.joint_components).sum(0)
        return Shape(vertices, joints)

    def transforms(self, joints: NDArray, rotations: Mapping[str, NDArray]) -> NDArray[np.float64]:
        """World transforms (104, 3, 4) of the bones. rotations: bone name -> matrix (3, 3) about the bone's
        joint, in axes parallel to the rest position's."""
        turns = np.tile(np.eye(3), (len(self.bone_parents), 1, 1))
        for name, turn in rotations.items():
            turns[self.bone[name]] = turn
        return chain(joints, self.bone_parents, turns)

    def skin(self, vertices: Float32, transforms: NDArray) -> Float32:
        """Posed vertices (V, 3) of a body in rest position."""
        return blend(vertices, self.bone_indices, self.bone_weights, transforms.astype(np.float32))

    def keypoints(self, shape: Shape, posed: Float32, transforms: NDArray) -> NDArray[np.float64]:
        """The 133 points (133, 3) in COCO-WholeBody order: 17 body, 6 feet, 68 face, 21 + 21 hands."""
        hands = []
        for side, letter in enumerate("LR"):
            bones = [f"wrist.{letter}"]
            points = [shape.joints[self.bone[bones[0]]]]
            for finger in range(1, 6):
                for joint in range(1, 4):
                    bones.append(f"finger{finger}-{joint}.{letter}")
                    points.append(shape.joints[self.bone[bones[-1]]])
                bones.append(bones[-1])
                points.append(shape.vertices[self._fingertips[side * 5 + finger - 1]].mean(0))
            moved = transforms[[self.bone[bone] for bone in bones]]
            hands.append((moved[:, :, :3] * np.array(points)[:, None]).sum(-1) + moved[:, :, 3])
        return np.concatenate([_regress(*self.keypoint_regressor, posed), self.face68.on(posed), *hands])

    def cheeks(self, posed: Float32) -> NDArray:
        """`jaw_outline` of every other jaw point, (17, 14, 3): those that iBUG's 68 points have."""
        return self.jaw_outline(posed)[::2]

    def jaw_outline(self, posed: Float32) -> NDArray:
        """Candidates (33, 14, 3) for the visible outline of the jaw: from each of WFLW's 33 jaw points towards
        the middle of the face. Seen from the side, annotators mark the cheek's outline in their place."""
        return self._jaw.on(posed)


def _read_landmarks(path: Path, base: NDArray) -> SurfacePoints:
    table = json.loads(path.read_text())
    return SurfacePoints(base[np.array(table["triangle"])], np.array(table["barycentric"], np.float32))


@lru_cache(maxsize=1)
def load_body() -> BodyModel:
    """The body model, read once a process (0.2 s)."""
    return BodyModel()
