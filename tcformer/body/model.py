"""Body models as torch modules: from rotations and shape to the mesh, or to joints only.

The package smplx poses the body. `BodyJoints` passes only those vertices to it that a joint depends on, which gives the
same joints with much less work. Training needs only joints.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tcformer.body.files import (
    Gender,
    Regressors,
    SmplArrays,
    find_smpl,
    load_regressors,
    load_smpl,
    load_vertex_ids,
)
from tcformer.body.joints import SPIN_JOINTS


class Mesh(NamedTuple):
    """A batch of posed bodies, in metres.

    Attributes:
        vertices: (B, V, 3).
        joints: (B, 45, 3): the 24 joints of the kinematic tree, then the 21 vertices that smplx appends.
    """

    vertices: Tensor
    joints: Tensor


class Joints(NamedTuple):
    """Joints of a batch of posed bodies, in metres.

    Attributes:
        spin: (B, 49, 3): `tcformer.body.joints.SPIN_NAMES`.
        h36m: (B, 17, 3): the rows of `Regressors.h36m`.
    """

    spin: Tensor
    h36m: Tensor


class Body(nn.Module):
    """Poses the whole mesh.

    Args:
        arrays: the body model.
        vertex_ids: the vertices that smplx appends to the joints.
    """

    def __init__(self, arrays: SmplArrays, vertex_ids: Mapping[str, int]) -> None:
        super().__init__()
        self.faces = arrays.faces
        self.layer = _smplx_layer(arrays, vertex_ids)

    def forward(self, rotations: Tensor, shape: Tensor) -> Mesh:
        """Pose bodies.

        Args:
            rotations: (B, 24, 3, 3) rotation of each joint relative to its parent; of the first relative to the axes.
            shape: (B, 10) shape coefficients.
        """
        out = self.layer(betas=shape, global_orient=rotations[:, :1], body_pose=rotations[:, 1:], pose2rot=False)
        return Mesh(out.vertices, out.joints)


class BodyJoints(nn.Module):
    """Computes only the joints. They are equal to those of the whole mesh.

    Args:
        arrays: the body model.
        regressors: of the additional joints.
        vertex_ids: the vertices that smplx appends to the joints.
    """

    h36m: Tensor
    extra: Tensor
    order: Tensor

    def __init__(self, arrays: SmplArrays, regressors: Regressors, vertex_ids: Mapping[str, int]) -> None:
        super().__init__()
        rows = np.concatenate([arrays.joint_regressor, regressors.h36m, regressors.extra])
        used = (rows != 0).any(axis=0) | np.isin(np.arange(rows.shape[1]), list(vertex_ids.values()))
        number = np.cumsum(used) - 1
        reduced = replace(
            arrays,
            v_template=arrays.v_template[used],
            shapedirs=arrays.shapedirs[used],
            posedirs=arrays.posedirs[used],
            joint_regressor=arrays.joint_regressor[:, used],
            weights=arrays.weights[used],
            faces=np.zeros((0, 3), np.int32),
        )
        self.layer = _smplx_layer(reduced, {name: int(number[vertex]) for name, vertex in vertex_ids.items()})
        self.register_buffer("h36m", torch.from_numpy(regressors.h36m[:, used]))
        self.register_buffer("extra", torch.from_numpy(regressors.extra[:, used]))
        self.register_buffer("order", torch.tensor(SPIN_JOINTS))

    def forward(self, rotations: Tensor, shape: Tensor) -> Joints:
        """Joints of posed bodies. Arguments as for `Body.forward`."""
        out = self.layer(betas=shape, global_orient=rotations[:, :1], body_pose=rotations[:, 1:], pose2rot=False)
        joints = torch.cat([out.joints, self.extra @ out.vertices], 1)  # (B, 54, 3)
        return Joints(joints[:, self.order], self.h36m @ out.vertices)


def load_body(folder: Path, gender: Gender = "neutral") -> Body:
    """Load the body model of a gender from a folder (see `tcformer.body.files`, also for the errors)."""
    arrays = load_smpl(find_smpl(folder, gender))
    return Body(arrays, load_vertex_ids(folder, arrays))


def load_joints(folder: Path, gender: Gender = "neutral") -> BodyJoints:
    """Load the joints of the body model of a gender from a folder (see `tcformer.body.files`, also for the errors)."""
    arrays = load_smpl(find_smpl(folder, gender))
    return BodyJoints(arrays, load_regressors(folder, arrays), load_vertex_ids(folder, arrays))


def _smplx_layer(arrays: SmplArrays, vertex_ids: Mapping[str, int]) -> nn.Module:
    import smplx
    from smplx.utils import Struct

    table = np.stack([arrays.parents, np.arange(len(arrays.parents))])
    data = Struct(
        v_template=arrays.v_template,
        shapedirs=arrays.shapedirs,
        posedirs=arrays.posedirs,
        J_regressor=arrays.joint_regressor,
        weights=arrays.weights,
        kintree_table=table,
        f=arrays.faces,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # smplx warns that there are only ten shape coefficients
        layer = smplx.SMPLLayer(model_path="", data_struct=data, vertex_ids=dict(vertex_ids))
    return layer
