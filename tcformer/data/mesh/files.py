"""Read annotation files of poses as `Bodies`: SPIN's .npz, 3DPW's sequences, EFT's JSON.

SPIN: arrays imgname, center, scale and, if known, part, openpose, S, pose, shape, has_smpl, gender
(github.com/nkolot/SPIN, datasets/preprocess). 3DPW: a folder with a pickle for each sequence; frames, boxes and poses
are selected as in SPIN's pw3d.py. EFT: pseudo ground truth of COCO, MPII, LSPET and others
(github.com/facebookresearch/eft).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer.body.joints import NUM_JOINTS, NUM_OPENPOSE, NUM_SHAPES, OPENPOSE_18
from tcformer.body.rotations import to_axis_angle, to_matrix
from tcformer.body.unpickle import load_pickle
from tcformer.checks import REPAIR, array_of, check_finite_rows, number_array, read_json, read_npz
from tcformer.data.mesh.bodies import (
    NUM_KEYPOINTS,
    NUM_POINTS_3D,
    Bodies,
    boxes_around,
    check_bodies,
    genders,
)
from tcformer.data.mesh.point_files import load_coco, load_lsp, load_mpii
from tcformer.errors import UserError

_POSE = 3 * NUM_JOINTS

# Indices in OpenPose's 18 points of the first 12 of SPIN's 24 joints (right ankle to left wrist).
_LIMBS_OF_OPENPOSE_18 = (10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7)


def load_bodies(path: Path) -> Bodies:
    """Read an annotation file or folder of any known kind. The kind is found from the suffix and the content.

    Known kinds are .npz (SPIN), .json (EFT, COCO's person keypoints, HRNet's list of MPII), .mat (LSP, LSP-Extended)
    and a folder of sequences (3DPW).

    Raises:
        UserError: the file does not exist or breaks its format. The message gives the file, the row or record, the
            field and what was expected.
    """
    if path.is_dir():
        return load_3dpw(path)
    if path.suffix == ".mat":
        return load_lsp(path)
    if path.suffix != ".json":
        return load_spin(path)
    content = read_json(path, "get it, or take it out of the mixture")
    if isinstance(content, list):
        return load_mpii(path, content)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list) and "images" in content:
        return load_coco(path, content)
    return load_eft(path, content)


def load_spin(path: Path) -> Bodies:
    """Read an .npz with SPIN's fields. All fields except imgname, center and scale are optional.

    If there is pose but not has_smpl, all poses are known. Genders are "m", "f", "male", "female" or "neutral", in any
    case; an empty one is neutral. Strings may be bytes, as Python 2 wrote them.

    Raises:
        UserError: see `load_bodies`.
    """
    data = read_npz(path, "run the prepare stage, or get SPIN's dataset_extras (github.com/nkolot/SPIN)")
    missing = [name for name in ("imgname", "center", "scale") if name not in data]
    if missing:
        raise UserError(f"{path}: no field {', '.join(missing)}; expected one of SPIN's files; {REPAIR}")
    count = data["imgname"].size
    names = _texts(path, "imgname", data["imgname"], count)

    def field(name: str, *shape: int) -> NDArray:
        return _rows(path, name, data.get(name), count, shape)

    has_smpl = np.full(count, "pose" in data and "shape" in data)
    if "has_smpl" in data and has_smpl.all():
        has_smpl = field("has_smpl") > 0
    openpose, part = field("openpose", NUM_OPENPOSE, 3), field("part", NUM_POINTS_3D, 3)
    letters = _texts(path, "gender", data["gender"], count) if "gender" in data else []
    bodies = Bodies(
        image=tuple(names),
        centre=field("center", 2),
        scale=field("scale"),
        pose=field("pose", _POSE).astype(np.float32),
        shape=field("shape", NUM_SHAPES).astype(np.float32),
        has_smpl=has_smpl,
        keypoints=np.concatenate([openpose, part], 1).astype(np.float32),
        joints=field("S", NUM_POINTS_3D, 4).astype(np.float32),
        gender=genders(letters, count, lambda row: f"{path}: row {row} (counted from 0): field 'gender'"),
    )
    check_bodies(bodies, lambda row: f"{path}: row {row} (counted from 0)")
    return bodies


def _rows(path: Path, name: str, array: NDArray | None, count: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Check a field (count, *shape). A missing field gives zeros."""
    if array is None:
        return np.zeros((count, *shape))
    values = number_array(f"{path}: field '{name}'", array, (count, *shape), finite=False)
    check_finite_rows(values, lambda row: f"{path}: row {row} (counted from 0): field '{name}'")
    return values


def _texts(path: Path, name: str, array: NDArray, count: int) -> list[str]:
    """Check a field with a string in each row."""
    if array.dtype.kind not in "US" or array.shape != (count,):
        raise UserError(
            f"{path}: field '{name}': expected a string for each of {count} rows, found {array.dtype} of shape "
            f"{array.shape}; {REPAIR}"
        )
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in array.tolist()]


def load_3dpw(folder: Path) -> Bodies:
    """Read the sequences of a split of 3DPW, .../sequenceFiles/<split>/*.pkl, as SPIN does.

    A row is a person in a frame with a valid camera pose. The box is that of the 2D points with a confidence above 0,
    enlarged by 1.2. A frame with less than two such points has no box and is dropped. The rotation of the root is
    converted from world to camera axes. Genders are spelt as in `load_spin`. Image names are
    <sequence>/image_%05d.jpg, below 3DPW's imageFiles.

    Raises:
        UserError: see `load_bodies`.
    """
    paths = sorted(path for path in folder.glob("*.pkl") if not path.name.startswith("."))  # macOS's ._name.pkl
    if not paths:
        raise UserError(f"{folder}: no *.pkl; expected 3DPW's sequenceFiles of a split; get 3DPW or run prepare")
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "pose", "shape", "points", "gender")}
    for path in paths:
        sequence = _Sequence(path)
        for person in range(sequence.people):
            for name, values in sequence.frames(person).items():
                rows[name].extend(values)
    points = np.array(rows["points"]).reshape(-1, 18, 3)
    centre, scale = boxes_around(points)
    keypoints = np.zeros((len(points), NUM_KEYPOINTS, 3), np.float32)
    keypoints[:, list(OPENPOSE_18)] = points
    keypoints[:, NUM_OPENPOSE : NUM_OPENPOSE + len(_LIMBS_OF_OPENPOSE_18)] = points[:, list(_LIMBS_OF_OPENPOSE_18)]
    count = len(points)
    bodies = Bodies(
        image=tuple(rows["image"]),
        centre=centre,
        scale=scale,
        pose=np.array(rows["pose"], np.float32).reshape(-1, _POSE),
        shape=np.array(rows["shape"], np.float32).reshape(-1, NUM_SHAPES),
        has_smpl=np.ones(count, bool),
        keypoints=keypoints,
        joints=np.zeros((count, NUM_POINTS_3D, 4), np.float32),
        gender=np.array(rows["gender"], np.int64),
    )
    check_bodies(bodies, lambda row: f"{folder}: image {bodies.image[row]}")
    return bodies


class _Sequence:
    """A checked sequence file of 3DPW."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keys = ("sequence", "betas", "poses", "genders", "poses2d", "cam_poses", "campose_valid")
        content = load_pickle(path, keys)
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a dict with {', '.join(keys)}, found {type(content).__name__}; {REPAIR}")
        missing = [key for key in keys if key not in content]
        if missing:
            raise UserError(f"{path}: no field {', '.join(missing)}; expected a sequence of 3DPW; {REPAIR}")
        self.content = content
        for key in ("poses", "betas", "genders", "poses2d", "campose_valid"):
            if not isinstance(content[key], list | tuple | np.ndarray) or getattr(content[key], "ndim", 1) == 0:
                raise UserError(f"{path}: field '{key}': expected a list with an entry for each person; {REPAIR}")
        if not isinstance(content["sequence"], str):
            raise UserError(f"{path}: field 'sequence': expected a name; {REPAIR}")
        self.people = len(content["poses"])
        for key in ("betas", "genders", "poses2d", "campose_valid"):
            if len(content[key]) != self.people:
                raise UserError(
                    f"{path}: field '{key}': expected {self.people} people as in 'poses', found {len(content[key])}; "
                    f"{REPAIR}"
                )
        cameras = content["cam_poses"]
        self.camera = self._numbers("cam_poses", cameras, (None, 4, 4))

    def _numbers(self, field: str, values: object, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
        return number_array(f"{self.path}: field '{field}'", array_of(values), shape, finite=False)

    def _check_finite(self, field: str, values: NDArray[np.float64], frames: NDArray[np.int64]) -> None:
        """Raise UserError if a value of the given frames is not finite. Values of other frames are not used."""
        check_finite_rows(
            values[frames],
            lambda row: f"{self.path}: frame {frames[row]} (counted from 0): field '{field}'",
            rows="frames",
        )

    def frames(self, person: int) -> dict[str, list[Any]]:
        """The rows of a person, as columns by name: image, pose, shape, points, gender."""
        content, count = self.content, len(self.camera)
        pose = self._numbers(f"poses[{person}]", content["poses"][person], (count, _POSE))
        points = self._numbers(f"poses2d[{person}]", content["poses2d"][person], (count, 3, 18)).transpose(0, 2, 1)
        valid = self._numbers(f"campose_valid[{person}]", content["campose_valid"][person], (count,)) > 0
        betas = self._numbers(f"betas[{person}]", content["betas"][person], (None,))[:NUM_SHAPES]
        number_array(f"{self.path}: field 'betas[{person}]'", betas, (NUM_SHAPES,))
        frames = np.flatnonzero(valid & ((points[:, :, 2] > 0).sum(1) > 1))
        self._check_finite("cam_poses", self.camera, frames)
        self._check_finite(f"poses[{person}]", pose, frames)
        self._check_finite(f"poses2d[{person}]", points, frames)
        turned = self.camera[frames, :3, :3] @ to_matrix(pose[frames, :3])
        pose = np.concatenate([to_axis_angle(turned), pose[frames, 3:]], 1)
        return {
            "image": [f"{content['sequence']}/image_{frame:05d}.jpg" for frame in frames],
            "pose": list(pose),
            "shape": [betas] * len(frames),
            "points": list(points[frames]),
            "gender": genders(
                [content["genders"][person]] * len(frames),
                len(frames),
                lambda row: f"{self.path}: field 'genders[{person}]'",
            ).tolist(),
        }


def load_eft(path: Path, content: object) -> Bodies:
    """Read EFT's pseudo ground truth. Image names are below the image folder of the dataset.

    Args:
        path: the JSON file, for messages.
        content: of the file.

    Raises:
        UserError: see `load_bodies`.
    """
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise UserError(f"{path}: expected an object with the list 'data'; {REPAIR}")
    records = content["data"]
    fields = {"parm_pose": (24, 3, 3), "parm_shape": (10,), "bbox_center": (2,), "bbox_scale": ()}
    columns: dict[str, list[NDArray]] = {name: [] for name in (*fields, "gt_keypoint_2d")}
    for number, record in enumerate(records):
        where = f"{path}: record {number} (counted from 0)"
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected an object; {REPAIR}")
        where += f", annotId {record['annotId']}" if "annotId" in record else ""
        if not isinstance(record.get("imageName"), str):
            raise UserError(f"{where}: field 'imageName': expected a string; {REPAIR}")
        for name, shape in fields.items():
            columns[name].append(number_array(f"{where}: field '{name}'", record.get(name), shape))
        points = record.get("gt_keypoint_2d", np.zeros((NUM_KEYPOINTS, 3)))
        columns["gt_keypoint_2d"].append(number_array(f"{where}: field 'gt_keypoint_2d'", points, (NUM_KEYPOINTS, 3)))
        rotation = columns["parm_pose"][-1]
        if np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() > 0.01:
            raise UserError(f"{where}: field 'parm_pose': expected rotation matrices; {REPAIR}")
    count = len(records)
    rotations = np.array(columns["parm_pose"]).reshape(-1, NUM_JOINTS, 3, 3)
    bodies = Bodies(
        image=tuple(record["imageName"] for record in records),
        centre=np.array(columns["bbox_center"]).reshape(-1, 2),
        scale=np.array(columns["bbox_scale"]).reshape(-1),
        pose=to_axis_angle(rotations).reshape(-1, _POSE).astype(np.float32),
        shape=np.array(columns["parm_shape"], np.float32).reshape(-1, NUM_SHAPES),
        has_smpl=np.ones(count, bool),
        keypoints=np.array(columns["gt_keypoint_2d"], np.float32).reshape(-1, NUM_KEYPOINTS, 3),
        joints=np.zeros((count, NUM_POINTS_3D, 4), np.float32),
        gender=genders([], count),
    )
    check_bodies(bodies, lambda row: f"{path}: record {row} (counted from 0)")
    return bodies
