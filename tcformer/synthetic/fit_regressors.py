"""Write assets/smpl_regressors.npz: the joints of the SMPL-format body as weighted means of a few of its vertices.

    python -m tcformer.synthetic.fit_regressors

Each row of a regressor is fitted by non-negative least squares, with weights that sum to 1. The 24 joints of the
kinematic tree are fitted in T-pose to the mean body and the ten shapes, which span all bodies.
Human3.6M's joints are fitted to posed bodies, because joints that are fitted in T-pose only leave the body when a limb
bends. The file is committed and not made at run time, because its last bits depend on the CPU's linear algebra.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcformer.body.files import NUM_JOINTS, NUM_SHAPES
from tcformer.synthetic.geometry import Array
from tcformer.synthetic.pose import PoseSpec, sample_pose
from tcformer.synthetic.smpl_body import PARENTS, VERTEX_IDS, SmplBody
from tcformer.synthetic.template_body import ASSETS, SKIN_VERTICES, load_template_body

#: The joint of the kinematic tree for each row of Human3.6M's regressor (SPIN's order) that is one.
H36M_JOINTS = {0: 0, 1: 1, 2: 4, 3: 7, 4: 2, 5: 5, 6: 8, 7: 6, 8: 12, 11: 16, 12: 18, 13: 20, 14: 17, 15: 19, 16: 21}
_JAW, _HEAD_TOP = 9, 10
_SURFACE_VERTICES = 20  # number of vertices whose mean these two are


def random_bodies(model: SmplBody, count: int, seed: int) -> tuple[NDArray, NDArray]:
    """Meshes (count, M, 3) and joints (count, 24, 3) of bodies with random shapes and poses."""
    rng = np.random.default_rng(seed)
    vertices, joints = [], []
    for _ in range(count):
        betas = rng.normal(0, 1, NUM_SHAPES)
        bones, _ = sample_pose(model.body, model.rest_joints(betas), PoseSpec(), rng)
        posed = model.posed(betas, model.pose_from(bones))
        vertices.append(posed.vertices[model.mesh])
        joints.append(posed.joints)
    return np.array(vertices), np.array(joints)


def fit_joints(model: SmplBody) -> Array:
    """The regressor (24, M) of the kinematic tree's joints, fitted in T-pose."""
    body = model.body
    components = zip(body.joint_components, model.coefficient_std, strict=False)
    targets = np.stack([model.t_pose_joints(body.joints), *(std * model.t_pose_joints(j) for j, std in components)])
    targets[1:, 0] = targets[1:, 1:3].mean(1)  # the pelvis's fixed height above the hips is part of the mean body
    sources = np.concatenate([model.template[None], model.shapes])[:, model.mesh]
    regressor = np.zeros((NUM_JOINTS, len(model.mesh)))
    for joint in range(NUM_JOINTS):
        distance = np.linalg.norm(sources[0, :SKIN_VERTICES] - targets[0, joint], axis=1)
        order = np.argsort(distance, kind="stable")
        candidates = np.union1d(order[:200], order[:1500:6])
        regressor[joint, candidates] = _fit(sources[:, candidates], targets[:, joint])
    return regressor


def fit_h36m(model: SmplBody) -> Array:
    """The regressor (17, M) of Human3.6M's joints in SPIN's order, fitted to posed bodies."""
    vertices, joints = random_bodies(model, 150, seed=0)
    arrays = model.arrays()
    rest = model.shaped(np.zeros(NUM_SHAPES))[1]
    rng = np.random.default_rng(1)
    regressor = np.zeros((17, len(model.mesh)))
    for row, joint in H36M_JOINTS.items():
        distance = np.linalg.norm(model.template[:SKIN_VERTICES] - rest[joint], axis=1)
        near = arrays.weights[:SKIN_VERTICES, [joint, max(PARENTS[joint], 0)]].sum(1) > 0.3
        candidates = rng.permutation(np.flatnonzero((distance < 0.22) & near))[:350]
        regressor[row, candidates] = _fit(vertices[:, candidates], joints[:, joint])
    skin = model.template[:SKIN_VERTICES]
    to_nose = np.linalg.norm(skin - skin[VERTEX_IDS["nose"]], axis=1)
    for row, order in ((_JAW, to_nose), (_HEAD_TOP, -skin[:, 2])):
        regressor[row, np.argsort(order, kind="stable")[:_SURFACE_VERTICES]] = 1 / _SURFACE_VERTICES
    return regressor


def _fit(sources: NDArray, targets: NDArray) -> Array:
    """Non-negative weights (C,) of sum 1: the weighted means of sources (N, C, 3) are nearest to targets (N, 3)."""
    from scipy.optimize import nnls

    matrix = sources.astype(float).transpose(0, 2, 1).reshape(-1, sources.shape[1])
    penalty = 30.0  # on the difference of the sum from 1, metres
    weights, _ = nnls(
        np.concatenate([matrix, np.full((1, matrix.shape[1]), penalty)]), np.append(targets, penalty), maxiter=50_000
    )
    weights[weights < 1e-3] = 0
    return weights / weights.sum()


def write(path: Path) -> None:
    """Fit both regressors and write them as sparse matrices.

    `SmplBody` reads the file, and the second fit needs the result of the first: so the file is written in three steps.
    """
    blank = {f"{name}_{part}": np.zeros(0, kind) for name in ("joints", "h36m") for part, kind in _PARTS}
    np.savez_compressed(path, **blank)  # type: ignore[arg-type]
    model = SmplBody(load_template_body(), path.parent)
    parts = _sparse("joints", fit_joints(model))
    np.savez_compressed(path, **{**blank, **parts})  # type: ignore[arg-type]
    model = SmplBody(load_template_body(), path.parent)
    np.savez_compressed(path, **parts, **_sparse("h36m", fit_h36m(model)))  # type: ignore[arg-type]


_PARTS = (("rows", np.uint8), ("vertices", np.uint16), ("weights", np.float32))


def _sparse(name: str, matrix: Array) -> dict[str, NDArray]:
    """A dense matrix as the sparse one of smpl_regressors.npz."""
    rows, vertices = np.nonzero(matrix)
    values = (rows, vertices, matrix[rows, vertices])
    return {f"{name}_{part}": value.astype(kind) for (part, kind), value in zip(_PARTS, values, strict=True)}


if __name__ == "__main__":
    write(ASSETS / "smpl_regressors.npz")
