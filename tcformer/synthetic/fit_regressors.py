"""Makes assets/smpl_regressors.npz: joints of the SMPL-format body as weighted means of few of its vertices.

    python -m tcformer.synthetic.fit_regressors

The 24 joints of the kinematic tree are fitted in T-pose to the mean body and the ten shapes, exactly as many
conditions as there are. Human3.6M's joints are fitted to posed bodies: fitted in T-pose alone they leave the body
when a limb bends. Non-negative least squares, rows of sum 1. The result is committed rather than made at run time
because its last bits depend on the processor's linear algebra.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcformer.body.files import NUM_JOINTS, NUM_SHAPES
from tcformer.synthetic.body import ASSETS, SKIN_VERTICES, load_body
from tcformer.synthetic.geometry import Array
from tcformer.synthetic.pose import PoseChoice, sample_pose
from tcformer.synthetic.smpl_body import PARENTS, VERTEX_IDS, SmplBody

#: Rows of Human3.6M's regressor (SPIN's order) that are joints of the kinematic tree, and these.
H36M_JOINTS = {0: 0, 1: 1, 2: 4, 3: 7, 4: 2, 5: 5, 6: 8, 7: 6, 8: 12, 11: 16, 12: 18, 13: 20, 14: 17, 15: 19, 16: 21}
_JAW, _HEAD_TOP = 9, 10
_SURFACE_VERTICES = 20  # that these two are the mean of


def random_bodies(model: SmplBody, count: int, seed: int) -> tuple[NDArray, NDArray]:
    """Posed meshes (count, M, 3) and their joints (count, 24, 3), shapes and poses drawn at random."""
    rng = np.random.default_rng(seed)
    vertices, joints = [], []
    for _ in range(count):
        betas = rng.normal(0, 1, NUM_SHAPES)
        bones, _ = sample_pose(model.body, model.rest_joints(betas), PoseChoice(), rng)
        posed = model.posed(betas, model.pose_from(bones))
        vertices.append(posed.vertices[model.mesh])
        joints.append(posed.joints)
    return np.array(vertices), np.array(joints)


def fit_joints(model: SmplBody) -> Array:
    """(24, M) regressor of the kinematic tree's joints in T-pose."""
    body = model.body
    components = zip(body.joint_components, model.coefficient_std, strict=False)
    targets = np.stack([model.t_joints(body.joints), *(std * model.t_joints(j) for j, std in components)])
    targets[1:, 0] = targets[1:, 1:3].mean(1)  # the fixed height above the hips belongs to the mean
    sources = np.concatenate([model.template[None], model.shapes])[:, model.mesh]
    regressor = np.zeros((NUM_JOINTS, len(model.mesh)))
    for joint in range(NUM_JOINTS):
        distance = np.linalg.norm(sources[0, :SKIN_VERTICES] - targets[0, joint], axis=1)
        order = np.argsort(distance, kind="stable")
        candidates = np.union1d(order[:200], order[:1500:6])
        regressor[joint, candidates] = _fit(sources[:, candidates], targets[:, joint])
    return regressor


def fit_h36m(model: SmplBody) -> Array:
    """(17, M) regressor of Human3.6M's joints in SPIN's order, from posed bodies."""
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
    """Weights (C,) >= 0 of sum 1 with sum_c weights_c sources (N, C, 3) nearest to targets (N, 3)."""
    from scipy.optimize import nnls

    matrix = sources.astype(float).transpose(0, 2, 1).reshape(-1, sources.shape[1])
    strong = 30.0  # how much the sum counts, metres
    weights, _ = nnls(
        np.concatenate([matrix, np.full((1, matrix.shape[1]), strong)]), np.append(targets, strong), maxiter=50_000
    )
    weights[weights < 1e-3] = 0
    return weights / weights.sum()


def write(path: Path) -> None:
    """Fit both regressors and write them as sparse matrices."""
    blank = {f"{name}_{part}": np.zeros(0, kind) for name in ("joints", "h36m") for part, kind in _PARTS}
    np.savez_compressed(path, **blank)  # type: ignore[arg-type]
    model = SmplBody(load_body(), path.parent)
    parts = _sparse("joints", fit_joints(model))
    np.savez_compressed(path, **{**blank, **parts})  # type: ignore[arg-type]
    model = SmplBody(load_body(), path.parent)
    np.savez_compressed(path, **parts, **_sparse("h36m", fit_h36m(model)))  # type: ignore[arg-type]


_PARTS = (("rows", np.uint8), ("vertices", np.uint16), ("weights", np.float32))


def _sparse(name: str, matrix: Array) -> dict[str, NDArray]:
    rows, vertices = np.nonzero(matrix)
    values = (rows, vertices, matrix[rows, vertices])
    return {f"{name}_{part}": value.astype(kind) for (part, kind), value in zip(_PARTS, values, strict=True)}


if __name__ == "__main__":
    write(ASSETS / "smpl_regressors.npz")
