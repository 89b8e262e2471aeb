"""The template body as a body model in SMPL's format: 24 joints, 10 shape coefficients, T-pose, no pose corrections.

Only the format is SMPL's: vertices, shapes and weights come from assets/body.npz. Every bone has a fixed rotation from
the template's rest position to the T-pose, so the vertices stay linear in the shape coefficients: the first ten
principal components of body.npz, in units of their standard deviation, are the model's shapes. The skinning weights
of each of the 24 joints are the sum of the weights of the bones that it carries, 104 in all.

`SmplBody` uses the template's axes (x to the person's left, z up, facing -y), as the renderer does; `SmplBody.arrays`
returns the model in SMPL's axes (x to the person's left, y up, facing +z).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcformer.body.files import GENDERS, NUM_JOINTS, NUM_SHAPES, Regressors, SmplArrays, save_smpl
from tcformer.body.joints import SPIN_JOINTS, VERTEX_JOINTS
from tcformer.synthetic.exact import product
from tcformer.synthetic.geometry import FORWARD, LEFT, UP, Array, Float32, rotation_between
from tcformer.synthetic.template_body import (
    ASSETS,
    BODY,
    EYES,
    SKIN_VERTICES,
    TemplateBody,
    forward_kinematics,
    linear_blend_skinning,
    load_template_body,
)

#: The bone at whose head each of SMPL's joints lies.
JOINT_BONES: Final = (
    *("root", "upperleg01.L", "upperleg01.R", "spine04", "lowerleg01.L", "lowerleg01.R", "spine03"),
    *("foot.L", "foot.R", "spine02", "toe2-1.L", "toe2-1.R", "neck01", "clavicle.L", "clavicle.R", "head"),
    *("upperarm01.L", "upperarm01.R", "lowerarm01.L", "lowerarm01.R", "wrist.L", "wrist.R"),
    *("finger3-1.L", "finger3-1.R"),
)
#: (24,) the parent of each of SMPL's joints.
PARENTS: Final = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])

#: Rotation from the template's axes to SMPL's.
TEMPLATE_TO_SMPL: Final[Array] = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])

# Joints that do not rotate relative to their parents: toes and hands.
_RIGID_JOINTS: Final = (10, 11, 22, 23)

_PELVIS_ABOVE_HIPS = 0.02  # metres

#: Vertices by the names that smplx uses, chosen once on the mean body.
VERTEX_IDS: Final = {
    **{"nose": 201, "leye": 7774, "reye": 1082, "lear": 12131, "rear": 5532},
    **{"LBigToe": 11606, "RBigToe": 4988, "LSmallToe": 13210, "RSmallToe": 6614, "LHeel": 12925, "RHeel": 6328},
    **{"lthumb": 9348, "lindex": 8598, "lmiddle": 8787, "lring": 8982, "lpinky": 9171},
    **{"rthumb": 2680, "rindex": 1930, "rmiddle": 2119, "rring": 2314, "rpinky": 2503},
}


@dataclass(frozen=True)
class PosedBody:
    """A posed body in the template's axes."""

    joints: Array
    """(24, 3) of the kinematic tree."""
    transforms: Array
    """(24, 3, 4) of the joints, from the T-pose."""
    bone_transforms: Array
    """(104, 3, 4) of the template's bones, from its rest position."""
    vertices: Float32
    """(V, 3) all of the template's vertices, without clothes."""


class SmplBody:
    """The body model. `load_smpl_body()` makes it once per process (0.1 s).

    Attributes:
        body: the template.
        template: (V, 3) the mean body in T-pose.
        shapes: (10, V, 3) what one unit of each shape coefficient adds to it.
        mesh: (M,) the template's vertices that belong to the model's mesh: skin and eyes.
        joint_regressor: (24, M) the joints as weighted means of the mesh's vertices.
        coefficient_std: (10,) metres along a principal component for one unit of a shape coefficient.
    """

    def __init__(self, body: TemplateBody, folder: Path = ASSETS) -> None:
        """Derive the model from the template and from smpl_regressors.npz in a folder."""
        self.body = body
        rest = body.transforms(body.joints, _t_pose(body))
        self._t_pose_rotations = rest[:, :, :3]
        self.coefficient_std = body.shape_bank.std(0, dtype=np.float64)[:NUM_SHAPES]
        self.template = body.skin(body.mean, rest)
        components = body.shape_components.reshape(-1, len(body.mean), 3)[:NUM_SHAPES]
        units = zip(components, body.joint_components, self.coefficient_std, strict=False)
        self.shapes: Float32 = np.stack([std * self.to_t_pose(v, j) for v, j, std in units]).astype(np.float32)
        self._joint_of_bone = np.array([_joint_of_bone(body, bone) for bone in range(len(body.bone_parents))])
        self._indices, self._weights = _joint_weights(body, self._joint_of_bone)
        eyes = np.unique(body.faces[body.face_group == EYES])
        self.mesh = np.concatenate([np.arange(SKIN_VERTICES), eyes])
        with np.load(folder / "smpl_regressors.npz") as file:
            self.joint_regressor = _dense(file, "joints", NUM_JOINTS, len(self.mesh))
            self._h36m = _dense(file, "h36m", 17, len(self.mesh))

    def to_t_pose(self, vertices: Float32, joints: Array) -> Float32:
        """Vertices (V, 3) moved from the rest position with joints (104, 3) to the T-pose; linear in both together."""
        return self.body.skin(vertices, self.body.transforms(joints, _t_pose(self.body)))

    def t_pose_joints(self, joints: Array) -> Array:
        """SMPL's joints (24, 3) in T-pose from the bones' joints (104, 3) in rest position."""
        transforms = self.body.transforms(joints, _t_pose(self.body))
        bones = [self.body.bone[name] for name in JOINT_BONES]
        moved = np.einsum("bij,bj->bi", transforms[bones, :, :3], joints[bones]) + transforms[bones, :, 3]
        moved[0] = (moved[1] + moved[2]) / 2 + _PELVIS_ABOVE_HIPS * UP
        return moved

    def shaped(self, betas: Array) -> tuple[Float32, Array]:
        """Vertices (V, 3) and SMPL's joints (24, 3) in T-pose of a body with shape coefficients (10,)."""
        vertices = self.template.copy()
        for beta, shape in zip(betas.astype(np.float32), self.shapes, strict=True):
            vertices += beta * shape
        joints = np.einsum("jv,vi->ji", self.joint_regressor.astype(float), vertices[self.mesh].astype(float))
        return vertices, joints

    def pose_from(self, bone_rotations: dict[str, Array]) -> Array:
        """SMPL's joint rotations (24, 3, 3), in the template's axes, from rotations of the bones (`sample_pose`)."""
        world = self.body.transforms(self.body.joints, bone_rotations)[:, :, :3]
        local = np.empty((NUM_JOINTS, 3, 3))
        turned = np.empty((NUM_JOINTS, 3, 3))
        for joint, name in enumerate(JOINT_BONES):
            bone, parent = self.body.bone[name], PARENTS[joint]
            above = turned[parent] if joint else np.eye(3)
            turned[joint] = above if joint in _RIGID_JOINTS else product(world[bone], self._t_pose_rotations[bone].T)
            local[joint] = product(above.T, turned[joint])
        return local

    def posed(self, betas: Array, pose: Array) -> PosedBody:
        """A body with shape coefficients (10,) and joint rotations (24, 3, 3), in the template's axes."""
        vertices, joints = self.shaped(betas)
        transforms = forward_kinematics(joints, PARENTS, pose)
        moved = np.einsum("jik,jk->ji", transforms[:, :, :3], joints) + transforms[:, :, 3]
        return PosedBody(moved, transforms, self._bone_transforms(betas, transforms), self.skin(vertices, transforms))

    def spin_joints(self, posed: PosedBody) -> Array:
        """SPIN's joints (49, 3) of a posed body (`tcformer.body.joints`), in the template's axes."""
        mesh = posed.vertices[self.mesh].astype(float)
        marked = mesh[[VERTEX_IDS[name] for name in VERTEX_JOINTS]]
        extra = np.einsum("jv,vi->ji", self.regressors.extra.astype(float), mesh)
        return np.concatenate([posed.joints, marked, extra])[list(SPIN_JOINTS)]

    def skin(self, vertices: Float32, transforms: Array) -> Float32:
        """Vertices (V, 3) in T-pose, moved by the joints' transforms (24, 3, 4)."""
        return linear_blend_skinning(vertices, self._indices, self._weights, transforms.astype(np.float32))

    def _bone_transforms(self, betas: Array, transforms: Array) -> Array:
        """Transforms (104, 3, 4) of the bones from the rest position, given those of the joints from the T-pose."""
        joints = self.rest_joints(betas)
        to_t = self.body.transforms(joints, _t_pose(self.body))
        joint = transforms[self._joint_of_bone]
        turn = np.einsum("bij,bjk->bik", joint[:, :, :3], to_t[:, :, :3])
        shift = np.einsum("bij,bj->bi", joint[:, :, :3], to_t[:, :, 3]) + joint[:, :, 3]
        return np.concatenate([turn, shift[:, :, None]], 2)

    def coefficients(self, betas: Array) -> Float32:
        """Coefficients (30,) for `TemplateBody.shape` from shape coefficients (10,)."""
        rest = np.zeros(len(self.body.joint_components), np.float32)
        rest[:NUM_SHAPES] = betas * self.coefficient_std
        return rest

    def rest_joints(self, betas: Array) -> Array:
        """Joints (104, 3) of the template's bones in rest position, from shape coefficients (10,)."""
        coefficients = self.coefficients(betas).astype(float)
        return self.body.joints + (coefficients[:, None, None] * self.body.joint_components).sum(0)

    def arrays(self) -> SmplArrays:
        """The model as it is stored in files, in SMPL's axes."""
        number = np.full(len(self.template), -1)
        number[self.mesh] = np.arange(len(self.mesh))
        faces = number[self.body.faces[np.isin(self.body.face_group, (BODY, EYES))]]
        weights = np.zeros((len(self.mesh), NUM_JOINTS), np.float32)
        rows = np.arange(len(self.mesh))[:, None]
        np.add.at(weights, (rows, self._indices[self.mesh]), self._weights[self.mesh])
        return SmplArrays(
            v_template=_to_smpl(self.template[self.mesh]),
            shapedirs=np.ascontiguousarray(np.moveaxis(_to_smpl(self.shapes[:, self.mesh]), 0, 2)),
            posedirs=np.zeros((len(self.mesh), 3, 9 * (NUM_JOINTS - 1)), np.float32),
            joint_regressor=self.joint_regressor,
            weights=weights,
            parents=PARENTS.astype(np.int64),
            faces=faces.astype(np.int32),
        )

    @cached_property
    def regressors(self) -> Regressors:
        """Regressors of Human3.6M's joints and of SPIN's further joints.

        SPIN's nine follow from the others: hips, neck, head top, pelvis, spine and jaw are Human3.6M's; the thorax is
        the mean of neck and shoulders, the head (H36M) the mean of the ears.
        """
        h = self._h36m
        thorax = h[[8, 11, 14]].mean(0)
        head = np.zeros_like(thorax)
        head[[VERTEX_IDS["lear"], VERTEX_IDS["rear"]]] = 0.5
        return Regressors(h, np.stack([h[4], h[1], h[8], h[10], h[0], thorax, h[7], h[9], head]).astype(np.float32))


@lru_cache(maxsize=1)
def load_smpl_body() -> SmplBody:
    """The body model, made once per process."""
    return SmplBody(load_template_body())


def write_smpl_body(folder: Path) -> None:
    """Write the model and its regressors as a folder of body models (see `tcformer.body.files`).

    The model has one shape space for all people, so the files of the three genders are the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = load_smpl_body()
    arrays, regressors = model.arrays(), model.regressors
    for gender in GENDERS:
        save_smpl(arrays, folder / f"SMPL_{gender.upper()}.npz")
    np.save(folder / "J_regressor_h36m.npy", regressors.h36m)
    np.save(folder / "J_regressor_extra.npy", regressors.extra)
    (folder / "vertex_ids.json").write_text(json.dumps(VERTEX_IDS))


def _t_pose(body: TemplateBody) -> dict[str, Array]:
    """Rotations of the bones from the mean body's rest position to a T-pose with the legs slightly apart."""
    joints, back = body.joints, -FORWARD
    pose = {}
    for side, outward in (("L", LEFT), ("R", -LEFT)):

        def at(name: str, side: str = side) -> Array:
            return joints[body.bone[f"{name}.{side}"]]

        upper = rotation_between(at("lowerarm01") - at("upperarm01"), outward + 0.05 * back)
        fore = rotation_between(product(upper, at("wrist") - at("lowerarm01")), outward + 0.02 * back)
        leg = rotation_between(at("foot") - at("upperleg01"), -UP + 0.06 * outward)
        pose[f"upperarm01.{side}"] = upper
        pose[f"lowerarm01.{side}"] = product(upper.T, fore, upper)
        pose[f"upperleg01.{side}"] = leg
        pose[f"foot.{side}"] = leg.T
    return pose


def _joint_of_bone(body: TemplateBody, bone: int) -> int:
    """The joint of SMPL that carries a bone: the joint of the bone itself, or else of its nearest ancestor."""
    names = list(body.bone)
    while True:
        name = names[bone]
        if name in JOINT_BONES:
            return JOINT_BONES.index(name)
        if name.startswith("finger"):
            return JOINT_BONES.index(f"finger3-1.{name[-1]}")
        if name.startswith("toe"):
            return JOINT_BONES.index(f"toe2-1.{name[-1]}")
        bone = int(body.bone_parents[bone])


def _joint_weights(body: TemplateBody, joint_of_bone: NDArray[np.int64]) -> tuple[NDArray[np.uint8], Float32]:
    """The joints (V, K) that move each vertex and their skinning weights (V, K), the largest first."""
    dense = np.zeros((len(body.mean), NUM_JOINTS))
    rows = np.arange(len(body.mean))[:, None]
    np.add.at(dense, (rows, joint_of_bone[body.bone_indices]), body.bone_weights)
    most = int((dense > 0).sum(1).max())
    order = np.argsort(-dense, axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(dense, order, 1)
    return order.astype(np.uint8), (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _dense(file: np.lib.npyio.NpzFile, name: str, rows: int, columns: int) -> Float32:
    """A sparse matrix of smpl_regressors.npz as a dense one (rows, columns)."""
    matrix = np.zeros((rows, columns), np.float32)
    matrix[file[f"{name}_rows"], file[f"{name}_vertices"]] = file[f"{name}_weights"]
    return matrix


def _to_smpl(points: NDArray) -> Float32:
    """Points (..., 3) of the template's axes in SMPL's axes."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1).astype(np.float32)
