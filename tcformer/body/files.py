"""SMPL-format body models and joint regressors on disk.

A folder of body models holds

    SMPL_NEUTRAL, SMPL_MALE, SMPL_FEMALE   each .npz (see `convert_smpl`) or .pkl (as published, renamed)
    J_regressor_h36m.npy                   (17, V) Human3.6M's joints, in SPIN's row order
    J_regressor_extra.npy                  (9, V) SPIN's further joints
    vertex_ids.json                        vertices of nose, eyes, ears, toes, heels and finger tips; without it
                                           smplx's for SMPL's 6890 vertices

Two files called J_regressor_h36m are in use, with the legs' rows exchanged: `check_sides` tells them apart.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcformer.body.joints import NUM_JOINTS, NUM_SHAPES
from tcformer.body.unpickle import load_pickle
from tcformer.checks import number_array, read_npz
from tcformer.errors import UserError

Gender = Literal["neutral", "male", "female"]
GENDERS: Final[tuple[Gender, ...]] = ("neutral", "male", "female")

Float32 = NDArray[np.float32]

#: Rows of SPIN's J_regressor_h36m: the sides' hip, knee, ankle, then shoulder, elbow, wrist.
_LEFT_ROWS: Final = (1, 2, 3, 11, 12, 13)
_RIGHT_ROWS: Final = (4, 5, 6, 14, 15, 16)

_ROOT_PARENT: Final = 2**32 - 1  # what SMPL's files hold as the parent of the first joint


@dataclass(frozen=True, eq=False)
class SmplArrays:
    """A body model: V vertices, T-pose, metres, y up, facing +z, the person's left at +x."""

    v_template: Float32
    """(V, 3) the mean body."""
    shapedirs: Float32
    """(V, 3, 10) what one unit of each shape coefficient adds."""
    posedirs: Float32
    """(V, 3, 207) what the joints' rotation matrices minus the identity add."""
    joint_regressor: Float32
    """(24, V) joints as weighted means of vertices."""
    weights: Float32
    """(V, 24) skinning."""
    parents: NDArray[np.int64]
    """(24,) parent joint, -1 for the first."""
    faces: NDArray[np.int32]
    """(F, 3) triangles."""


@dataclass(frozen=True, eq=False)
class Regressors:
    """Further joints as weighted means of a body model's vertices."""

    h36m: Float32
    """(17, V) in SPIN's order: pelvis; left hip, knee, ankle; right; spine, neck, jaw, head top; left shoulder,
    elbow, wrist; right."""
    extra: Float32
    """(9, V) right hip, left hip, neck (LSP), head top (LSP), pelvis (MPII), thorax (MPII), spine, jaw, head
    (H36M)."""


def load_smpl(path: Path | str) -> SmplArrays:
    """Read a body model from an .npz that `save_smpl` wrote or from a .pkl as published.

    Shape coefficients after the tenth are left out.

    Raises:
        UserError: the file is missing, refused (see `load_pickle`) or no body model; names the field.
    """
    path = Path(path)
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    if path.suffix == ".npz":
        content: object = read_npz(path, "convert the published body model to it")
    else:
        content = load_pickle(path, names)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a body model, a dict with {', '.join(names)}; fetch the file again")
    dense = {name: _dense(content[name]) for name in names if name in content}
    vertices = len(dense["v_template"]) if "v_template" in dense and dense["v_template"].ndim else 0
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (None, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 207),
        "J_regressor": (NUM_JOINTS, vertices),
        "weights": (vertices, NUM_JOINTS),
        "kintree_table": (2, NUM_JOINTS),
        "f": (None, 3),
    }
    fields = {name: number_array(f"{path}: field '{name}'", dense.get(name), expected[name]) for name in names}
    if fields["shapedirs"].shape[2] < NUM_SHAPES:
        raise UserError(
            f"{path}: field 'shapedirs': expected at least {NUM_SHAPES} shapes, found {fields['shapedirs'].shape[2]}; "
            f"fetch the file again"
        )
    parents = fields["kintree_table"][0].astype(np.int64)
    parents[0] = -1
    if not ((parents[1:] >= 0) & (parents[1:] < np.arange(1, NUM_JOINTS))).all():
        raise UserError(f"{path}: field 'kintree_table': expected parents before their children; fetch the file again")
    faces = fields["f"].astype(np.int64)
    if faces.min() < 0 or faces.max() >= vertices:
        raise UserError(f"{path}: field 'f': expected vertices 0 to {vertices - 1}; fetch the file again")
    return SmplArrays(
        v_template=fields["v_template"].astype(np.float32),
        shapedirs=fields["shapedirs"][:, :, :NUM_SHAPES].astype(np.float32),
        posedirs=fields["posedirs"].astype(np.float32),
        joint_regressor=fields["J_regressor"].astype(np.float32),
        weights=fields["weights"].astype(np.float32),
        parents=parents,
        faces=faces.astype(np.int32),
    )


def _dense(value: object) -> NDArray:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)


def _published(arrays: SmplArrays) -> dict[str, NDArray]:
    """The fields under their names and in the types of SMPL's files."""
    table = np.stack([arrays.parents, np.arange(NUM_JOINTS)])
    table[0, 0] = _ROOT_PARENT
    return {
        "v_template": arrays.v_template,
        "shapedirs": arrays.shapedirs,
        "posedirs": arrays.posedirs,
        "J_regressor": arrays.joint_regressor,
        "weights": arrays.weights,
        "kintree_table": table.astype(np.uint32),
        "f": arrays.faces.astype(np.uint32),
    }


def save_smpl(arrays: SmplArrays, path: Path) -> None:
    """Write a body model as compressed .npz, the same bytes for the same arrays."""
    np.savez_compressed(path, **_published(arrays))  # type: ignore[arg-type]


def save_smpl_pickle(arrays: SmplArrays, path: Path) -> None:
    """Write a body model as a .pkl that `smplx.SMPL(model_path=...)` reads, of numpy arrays alone."""
    path.write_bytes(pickle.dumps(_published(arrays), protocol=2))


def convert_smpl(source: Path, target: Path) -> None:
    """Write the .npz `target` from a body model as published (a .pkl with chumpy arrays).

    Raises:
        UserError: see `load_smpl`.
    """
    save_smpl(load_smpl(source), target)


def find_smpl(folder: Path, gender: Gender) -> Path:
    """The file of a gender's body model in a folder.

    Raises:
        UserError: there is none.
    """
    for suffix in (".npz", ".pkl"):
        path = folder / f"SMPL_{gender.upper()}{suffix}"
        if path.exists():
            return path
    raise UserError(
        f"{folder}: no SMPL_{gender.upper()}.npz or .pkl; get SMPL at smpl.is.tue.mpg.de, put it there under that name"
    )


def load_regressors(folder: Path, model: SmplArrays) -> Regressors:
    """Read both regressors of a folder and check that they belong to the model.

    Raises:
        UserError: a file is missing, does not fit the model's vertices, or has left and right exchanged.
    """
    vertices = len(model.v_template)
    regressors = []
    for name, rows in (("J_regressor_h36m.npy", 17), ("J_regressor_extra.npy", 9)):
        path = folder / name
        try:
            array = np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; get it with SPIN's data (github.com/nkolot/SPIN)") from error
        except Exception as error:
            raise UserError(f"{path}: cannot be read as .npy ({error}); fetch the file again") from error
        if array.shape != (rows, vertices):
            raise UserError(f"{path}: expected {rows} x {vertices} numbers for this body model, found {array.shape}")
        regressors.append(np.ascontiguousarray(array, np.float32))
    check_sides(regressors[0], model.v_template, str(folder / "J_regressor_h36m.npy"))
    return Regressors(*regressors)


def check_sides(h36m: NDArray, v_template: NDArray, name: str) -> None:
    """Make sure that the rows of an H36M regressor are SPIN's: in T-pose the left joints lie at x > 0.

    Args:
        h36m: (17, V).
        v_template: (V, 3).
        name: of the file, for the message.

    Raises:
        UserError: left and right are exchanged in some rows, as in METRO's and Pose2Mesh's file.
    """
    x = h36m @ v_template[:, 0]
    wrong = [row for row in _LEFT_ROWS if x[row] <= 0] + [row for row in _RIGHT_ROWS if x[row] >= 0]
    if wrong:
        raise UserError(
            f"{name}: expected SPIN's rows (1-3 the left leg, 4-6 the right), but rows {sorted(wrong)} lie on the "
            f"other side of the body, as in METRO's J_regressor_h36m_correct.npy; use SPIN's J_regressor_h36m.npy"
        )


def load_vertex_ids(folder: Path, model: SmplArrays) -> dict[str, int]:
    """Names and numbers of the vertices that smplx adds to the joints.

    Raises:
        UserError: a folder without vertex_ids.json whose model is not SMPL's mesh, or a number beyond the mesh.
    """
    path = folder / "vertex_ids.json"
    vertices = len(model.v_template)
    if not path.exists():
        if vertices != 6890:
            raise UserError(f"{path}: no such file; a body model of {vertices} vertices needs one (SMPL's has 6890)")
        from smplx.vertex_ids import vertex_ids

        return dict(vertex_ids["smplh"])
    try:
        numbers = {str(name): int(number) for name, number in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: expected an object of vertex numbers ({error}); write it again") from error
    if not all(0 <= number < vertices for number in numbers.values()):
        raise UserError(f"{path}: expected vertex numbers below {vertices}; take the file of this body model")
    return numbers
