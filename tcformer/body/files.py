"""Files of body models in SMPL's format and of joint regressors.

A folder of body models contains

    SMPL_NEUTRAL, SMPL_MALE, SMPL_FEMALE   each .npz (see `convert_smpl`) or .pkl (as published, renamed)
    J_regressor_h36m.npy                   (17, V) Human3.6M's joints, in SPIN's row order
    J_regressor_extra.npy                  (9, V) SPIN's additional joints
    vertex_ids.json                        vertices of nose, eyes, ears, toes, heels and finger tips; if it is missing,
                                           smplx's for SMPL's 6890 vertices are used

Two different files are called J_regressor_h36m: they differ in the order of the legs' rows. `check_sides` tells them
apart.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcformer.body.joints import NUM_JOINTS, NUM_SHAPES
from tcformer.body.unpickle import load_pickle
from tcformer.checks import MOST_ENTRIES, array_of, is_count, number_array, read_json, read_npz
from tcformer.errors import UserError

Gender = Literal["neutral", "male", "female"]
GENDERS: Final[tuple[Gender, ...]] = ("neutral", "male", "female")

Float32 = NDArray[np.float32]

#: Rows of SPIN's J_regressor_h36m: hip, knee, ankle, shoulder, elbow, wrist of a side.
_LEFT_ROWS: Final = (1, 2, 3, 11, 12, 13)
_RIGHT_ROWS: Final = (4, 5, 6, 14, 15, 16)

_ROOT_PARENT: Final = 2**32 - 1  # the value in SMPL's files for the parent of the first joint


@dataclass(frozen=True, eq=False)
class SmplArrays:
    """A body model of V vertices in T-pose, in metres: y up, facing +z, the person's left at +x.

    Attributes:
        v_template: (V, 3) the mean body.
        shapedirs: (V, 3, 10) offsets for one unit of each shape coefficient.
        posedirs: (V, 3, 207) offsets for the joints' rotation matrices minus the identity.
        joint_regressor: (24, V) joints as weighted means of vertices.
        weights: (V, 24) skinning weights.
        parents: (24,) parent of each joint, -1 for the first.
        faces: (F, 3) triangles.
    """

    v_template: Float32
    shapedirs: Float32
    posedirs: Float32
    joint_regressor: Float32
    weights: Float32
    parents: NDArray[np.int64]
    faces: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Regressors:
    """Additional joints as weighted means of the vertices of a body model.

    Attributes:
        h36m: (17, V) in SPIN's order: pelvis; left hip, knee, ankle; right hip, knee, ankle; spine, neck, jaw, head
            top; left shoulder, elbow, wrist; right shoulder, elbow, wrist.
        extra: (9, V) right hip, left hip, neck (LSP), head top (LSP), pelvis (MPII), thorax (MPII), spine, jaw, head
            (H36M).
    """

    h36m: Float32
    extra: Float32


def load_smpl(path: Path | str) -> SmplArrays:
    """Read a body model from an .npz written by `save_smpl` or from a published .pkl.

    Shape coefficients after the tenth are dropped.

    Raises:
        UserError: the file does not exist, is refused (see `load_pickle`) or is not a body model.
    """
    path = Path(path)
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    if path.suffix == ".npz":
        content: object = read_npz(path, "convert the published body model to it")
    else:
        content = load_pickle(path, names)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a body model, a dict with {', '.join(names)}; download the file again")
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
            f"download the file again"
        )
    parents = fields["kintree_table"][0].astype(np.int64)
    parents[0] = -1
    if not ((parents[1:] >= 0) & (parents[1:] < np.arange(1, NUM_JOINTS))).all():
        raise UserError(
            f"{path}: field 'kintree_table': expected parents before their children; download the file again"
        )
    faces = fields["f"].astype(np.int64)
    if not ((faces >= 0) & (faces < vertices)).all():
        raise UserError(f"{path}: field 'f': expected vertices 0 to {vertices - 1}; download the file again")
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
    """An array or a sparse matrix as an array; a matrix that is too large for a body model stays an object."""
    to_array = getattr(value, "toarray", None)
    small = math.prod(getattr(value, "shape", ())) <= MOST_ENTRIES
    return array_of(to_array() if to_array and small else value)


def _published(arrays: SmplArrays) -> dict[str, NDArray]:
    """The fields of SMPL's files, with their names and dtypes."""
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
    """Write a body model as compressed .npz. The same arrays give the same bytes."""
    np.savez_compressed(path, **_published(arrays))  # type: ignore[arg-type]


def save_smpl_pickle(arrays: SmplArrays, path: Path) -> None:
    """Write a body model as a .pkl of numpy arrays that `smplx.SMPL(model_path=...)` reads."""
    path.write_bytes(pickle.dumps(_published(arrays), protocol=2))


def convert_smpl(source: Path, target: Path) -> None:
    """Convert a published body model (a .pkl with chumpy arrays) to the .npz file `target`.

    Raises:
        UserError: see `load_smpl`.
    """
    save_smpl(load_smpl(source), target)


def find_smpl(folder: Path, gender: Gender) -> Path:
    """Find the file of the body model of a gender in a folder.

    Raises:
        UserError: there is no such file.
    """
    for suffix in (".npz", ".pkl"):
        path = folder / f"SMPL_{gender.upper()}{suffix}"
        if path.exists():
            return path
    raise UserError(
        f"{folder}: no SMPL_{gender.upper()}.npz or .pkl; get SMPL at smpl.is.tue.mpg.de and put it there by that name"
    )


def load_regressors(folder: Path, model: SmplArrays) -> Regressors:
    """Read both regressors of a folder and check that they fit the body model.

    Raises:
        UserError: a file does not exist, does not fit the vertices of the model, or exchanges left and right.
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
            raise UserError(f"{path}: cannot be read as .npy ({error}); download the file again") from error
        shape = getattr(array, "shape", "an archive")  # of a renamed .npz
        if shape != (rows, vertices):
            raise UserError(
                f"{path}: expected {rows} x {vertices} numbers for this body model, found {shape}; "
                f"use the file of this body model"
            )
        regressors.append(np.ascontiguousarray(number_array(str(path), array, (rows, vertices)), np.float32))
    check_sides(regressors[0], model.v_template, str(folder / "J_regressor_h36m.npy"))
    return Regressors(*regressors)


def check_sides(h36m: NDArray, v_template: NDArray, name: str) -> None:
    """Check that the rows of an H36M regressor are in SPIN's order: in T-pose the left joints lie at x > 0.

    Args:
        h36m: (17, V) regressor.
        v_template: (V, 3) mean body.
        name: of the file, for the message.

    Raises:
        UserError: some rows exchange left and right, as in the file of METRO and Pose2Mesh.
    """
    x = h36m @ v_template[:, 0]
    wrong = [row for row in _LEFT_ROWS if x[row] <= 0] + [row for row in _RIGHT_ROWS if x[row] >= 0]
    if wrong:
        raise UserError(
            f"{name}: expected SPIN's rows (1-3 the left leg, 4-6 the right), but rows {sorted(wrong)} lie on the "
            f"other side of the body, as in METRO's J_regressor_h36m_correct.npy; use SPIN's J_regressor_h36m.npy"
        )


def load_vertex_ids(folder: Path, model: SmplArrays) -> dict[str, int]:
    """Read the names and numbers of the vertices that smplx appends to the joints.

    Raises:
        UserError: vertex_ids.json does not exist and the model does not have SMPL's vertices, or a number is out of
            range.
    """
    path = folder / "vertex_ids.json"
    vertices = len(model.v_template)
    if not path.exists():
        if vertices != 6890:
            raise UserError(f"{path}: no such file; a body model of {vertices} vertices needs one (SMPL has 6890)")
        from smplx.vertex_ids import vertex_ids

        return dict(vertex_ids["smplh"])
    numbers = read_json(path, "use the file of this body model")
    if not isinstance(numbers, dict) or not all(is_count(number, 0) for number in numbers.values()):
        raise UserError(f"{path}: expected an object of vertex numbers, found {numbers!r:.60}; write it again")
    if not all(number < vertices for number in numbers.values()):
        raise UserError(f"{path}: expected vertex numbers below {vertices}; use the file of this body model")
    return numbers
