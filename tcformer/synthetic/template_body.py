"""The template body: shapes, facial expressions, joints and skinning of one mesh, and its 133 keypoints.

It has 15,114 vertices of MakeHuman's base mesh, 104 bones with fingers and toes, 30 principal components of shape
with a bank of 480 bodies to sample from, and 52 facial expressions (see assets/README.md). Its rest position: metres,
z up, facing -y, the person's left at +x, the arms 45 degrees away from the trunk.
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
from tcformer.synthetic.geometry import Array, Float32, Int32

ASSETS = Path(__file__).parent / "assets"

#: Groups of faces of the mesh: values of `TemplateBody.face_group`.
BODY, EYES, HAIR, SKIRT, TEETH, TONGUE = range(6)

#: The first vertices of the mesh are skin; eyes, hair, skirt, teeth, tongue and markers of the finger tips follow.
SKIN_VERTICES = 13_380


@dataclass(frozen=True)
class SurfacePoints:
    """Points fixed to the surface of the mesh."""

    triangle: NDArray[np.int64]
    """(..., 3) vertices at the corners of each point's triangle."""
    barycentric: Float32
    """(..., 3) their weights."""

    def on(self, vertices: NDArray) -> NDArray:
        """Positions (..., 3) of the points on a mesh with vertices (V, 3)."""
        return (vertices[self.triangle] * self.barycentric[..., None]).sum(-2)


@dataclass(frozen=True)
class Shape:
    """A body in rest position, metres."""

    vertices: Float32
    """(V, 3)"""
    joints: Array
    """(104, 3)"""


@numba.njit(cache=True)
def _weighted_sum(start: Float32, terms: Float32, weights: Float32) -> Float32:
    """start (n,) + weights (k,) @ terms (k, n), summed in a fixed order."""
    result = start.copy()
    for k in range(terms.shape[0]):
        for i in range(result.shape[0]):
            result[i] += weights[k] * terms[k, i]
    return result


@numba.njit(cache=True)
def linear_blend_skinning(vertices: Float32, bones: NDArray, weights: Float32, transforms: Float32) -> Float32:
    """Posed vertices (V, 3): each is moved by the weighted mean of its bones' transforms.

    Args:
        vertices: (V, 3) rest position.
        bones: (V, K) indices of the bones that move each vertex.
        weights: (V, K) their weights, the largest first; after a 0 all are 0.
        transforms: (B, 3, 4) of the bones, float32.
    """
    posed = np.empty_like(vertices)
    matrix = np.empty((3, 4), np.float32)
    for v in range(vertices.shape[0]):
        matrix[:] = 0.0
        for k in range(bones.shape[1]):
            weight = weights[v, k]
            if weight == 0.0:
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
def forward_kinematics(joints: NDArray, parents: NDArray, rotations: NDArray) -> Array:
    """World transforms (B, 3, 4) of a kinematic tree.

    Args:
        joints: (B, 3) rest position of each bone's joint, metres.
        parents: (B,) parent of each bone, -1 for none; parents come before their children.
        rotations: (B, 3, 3) of each bone about its joint.
    """
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
def _regress_keypoints(rows: NDArray, columns: NDArray, weights: Float32, vertices: Float32) -> Array:
    """Body and foot keypoints (23, 3) as weighted means of vertices (V, 3); the weights are a sparse matrix (23, V)."""
    points = np.zeros((23, 3))
    for k in range(rows.shape[0]):
        for axis in range(3):
            points[rows[k], axis] += weights[k] * vertices[columns[k], axis]
    return points


class TemplateBody:
    """The template mesh and everything that is fixed to it. `load_template_body()` reads it once per process.

    The attributes without a comment are arrays of body.npz; assets/README.md describes them.

    Attributes:
        bone: index of each bone by name.
        face68: iBUG's 68 face landmarks on the mesh.
        face98: WFLW's 98 face landmarks on the mesh.
    """

    def __init__(self, folder: Path = ASSETS) -> None:
        """Read body.npz, ibug68.json and wflw98.json from a folder."""
        with np.load(folder / "body.npz") as file:
            data = {name: file[name] for name in file.files}
        self.mean: Float32 = data["mean"]
        self.shape_components = data["shape_components"].astype(np.float32).reshape(len(data["shape_components"]), -1)
        self.joints: Array = data["joints"].astype(float)
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
        self._keypoint_regressor = (
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
        """A body in rest position.

        Args:
            coefficients: (30,) metres along the principal components of shape.
            expression: strength, 0 to 1, of each facial expression by name.
        """
        coefficients = coefficients.astype(np.float32)
        vertices = _weighted_sum(self.mean.reshape(-1), self.shape_components, coefficients).reshape(-1, 3)
        for name, strength in expression.items():
            offset = self._expressions[self.expression_names.index(name)]
            vertices[self._expression_vertices] += np.float32(strength) * offset
        joints = self.joints + (coefficients[:, None, None].astype(float) * self.joint_components).sum(0)
        return Shape(vertices, joints)

    def transforms(self, joints: NDArray, rotations: Mapping[str, NDArray]) -> Array:
        """World transforms (104, 3, 4) of the bones.

        Args:
            joints: (104, 3) of the body in rest position.
            rotations: matrix (3, 3) by bone name, about the bone's joint, in axes parallel to the rest position's;
                bones without one do not rotate.
        """
        turns = np.tile(np.eye(3), (len(self.bone_parents), 1, 1))
        for name, turn in rotations.items():
            turns[self.bone[name]] = turn
        return forward_kinematics(joints, self.bone_parents, turns)

    def skin(self, vertices: Float32, transforms: NDArray) -> Float32:
        """Posed vertices (V, 3) of a body in rest position (V, 3), by the bones' transforms (104, 3, 4)."""
        return linear_blend_skinning(vertices, self.bone_indices, self.bone_weights, transforms.astype(np.float32))

    def keypoints(self, shape: Shape, posed: Float32, transforms: NDArray) -> Array:
        """Keypoints (133, 3) in the order of COCO-WholeBody: 17 body, 6 feet, 68 face, 21 + 21 hands.

        Args:
            shape: the body in rest position.
            posed: (V, 3) its posed vertices.
            transforms: (104, 3, 4) of the bones, that made them.
        """
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
        return np.concatenate([_regress_keypoints(*self._keypoint_regressor, posed), self.face68.on(posed), *hands])

    def jaw_candidates98(self, posed: Float32) -> NDArray:
        """Points (33, 14, 3) from each of WFLW's 33 jaw points towards the middle of the face.

        On a face that is seen from the side, annotators mark the visible outline of the cheek instead of the jaw:
        `tcformer.synthetic.render.annotated_jaw` chooses among these points.
        """
        return self._jaw.on(posed)

    def jaw_candidates68(self, posed: Float32) -> NDArray:
        """`jaw_candidates98` of the 17 jaw points that iBUG's 68 landmarks have, (17, 14, 3)."""
        return self.jaw_candidates98(posed)[::2]


def _read_landmarks(path: Path, base: NDArray) -> SurfacePoints:
    """Landmarks from a file that numbers vertices as base.obj does; `base` maps these numbers to the mesh's."""
    table = json.loads(path.read_text())
    return SurfacePoints(base[np.array(table["triangle"])], np.array(table["barycentric"], np.float32))


@lru_cache(maxsize=1)
def load_template_body() -> TemplateBody:
    """The template body, read once per process (0.2 s)."""
    return TemplateBody()
