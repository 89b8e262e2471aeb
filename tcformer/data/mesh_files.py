"""Files that say how bodies are posed: SPIN's .npz, 3DPW's sequences, EFT's JSON, all to one form.

SPIN: arrays imgname, center, scale and, if known, part, openpose, S, pose, shape, has_smpl, gender
(github.com/nkolot/SPIN, datasets/preprocess). 3DPW: a folder of pickles, one a sequence; frames, boxes and poses are
taken as SPIN's pw3d.py takes them. EFT: pseudo-truth of COCO, MPII, LSPET and others (github.com/facebookresearch/eft).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.body.files import GENDERS, NUM_JOINTS, NUM_SHAPES
from tcformer.body.joints import NUM_OPENPOSE, OPENPOSE_18, SPIN_NAMES
from tcformer.body.rotations import to_axis_angle, to_matrix
from tcformer.body.unpickle import load_pickle
from tcformer.errors import UserError

Float32 = NDArray[np.float32]

NUM_KEYPOINTS: Final = len(SPIN_NAMES)
NUM_POINTS_3D: Final = NUM_KEYPOINTS - NUM_OPENPOSE

#: Side of a box of scale 1, pixels.
BOX_UNIT: Final = 200.0

_MARGIN = 1.2  # SPIN's, of a box around 2D points
_POSE = 3 * NUM_JOINTS

# The limb joints of SPIN's 24 (right ankle to left wrist) among OpenPose's 18 points.
_LIMBS_OF_OPENPOSE_18 = (10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7)

_FETCH = "correct it or fetch the file again"


@dataclass(frozen=True, eq=False)
class Bodies:
    """The people of a file, one a row."""

    #: image files, relative to the data set's image folder
    image: tuple[str, ...]
    #: (N, 2) float64 centre of the box in image pixels
    centre: NDArray[np.float64]
    #: (N,) float64 side of the box / 200 pixels
    scale: NDArray[np.float64]
    #: (N, 72) axis-angle of SMPL's joints, the root's in the camera's axes; zeros where unknown
    pose: Float32
    #: (N, 10) shape coefficients; zeros where unknown
    shape: Float32
    #: (N,) bool, whether pose and shape are known
    has_smpl: NDArray[np.bool_]
    #: (N, 49, 3) x, y in image pixels, confidence: `tcformer.body.joints.SPIN_NAMES`
    keypoints: Float32
    #: (N, 24, 4) x, y, z in metres and the camera's axes, confidence: the last 24 of SPIN_NAMES
    joints: Float32
    #: (N,) int64, index in `tcformer.body.files.GENDERS`
    gender: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image)


def load_bodies(path: Path) -> Bodies:
    """Read a file or folder of one of the three kinds: .npz (SPIN), .json (EFT) or a folder of sequences (3DPW).

    Raises:
        UserError: it is missing or breaks its format; names the file, the row or record, the field and what was
            expected.
    """
    if path.is_dir():
        return load_3dpw(path)
    return load_eft(path) if path.suffix == ".json" else load_spin(path)


def load_spin(path: Path) -> Bodies:
    """Read an .npz with SPIN's fields. All but imgname, center and scale may be missing.

    A file with pose and without has_smpl has poses for all. A gender that is neither "m" nor "f" is neutral. Texts may
    be bytes, as Python 2 wrote them.

    Raises:
        UserError: see `load_bodies`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; run the prepare stage, or get SPIN's dataset_extras (github.com/nkolot/SPIN)"
        ) from error
    except Exception as error:  # zipfile and numpy raise many kinds for a broken file
        raise UserError(f"{path}: cannot be read as .npz of plain arrays ({error}); fetch the file again") from error
    missing = [name for name in ("imgname", "center", "scale") if name not in data]
    if missing:
        raise UserError(f"{path}: no field {', '.join(missing)}; expected one of SPIN's files; {_FETCH}")
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
        gender=_genders(letters, count),
    )
    _check(bodies, lambda row: f"{path}: row {row} (counted from 0)")
    return bodies


def _rows(path: Path, name: str, array: NDArray | None, count: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A field (count, *shape); zeros if the file lacks it."""
    if array is None:
        return np.zeros((count, *shape))
    if array.shape != (count, *shape) or array.dtype.kind not in "fiub":
        raise UserError(
            f"{path}: field '{name}': expected numbers of shape {(count, *shape)}, found {array.dtype} of shape "
            f"{array.shape}; {_FETCH}"
        )
    wrong = ~_finite_rows(array)
    if wrong.any():
        raise UserError(
            f"{path}: row {int(wrong.argmax())} (counted from 0): field '{name}': expected finite numbers; {_FETCH} "
            f"({int(wrong.sum())} rows are wrong)"
        )
    return array.astype(np.float64)


def _finite_rows(array: NDArray) -> NDArray[np.bool_]:
    return np.isfinite(array).all(axis=tuple(range(1, array.ndim)))


def _texts(path: Path, name: str, array: NDArray, count: int) -> list[str]:
    """A field of one text a row."""
    if array.dtype.kind not in "US" or array.shape != (count,):
        raise UserError(
            f"{path}: field '{name}': expected one text a row, found {array.dtype} of shape {array.shape}; {_FETCH}"
        )
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in array.tolist()]


def _genders(letters: Sequence[str], count: int) -> NDArray[np.int64]:
    """(count,) indices in GENDERS; neutral where nothing is said."""
    names = {"m": GENDERS.index("male"), "f": GENDERS.index("female")}
    neutral = GENDERS.index("neutral")
    return np.array([names.get(letter, neutral) for letter in letters] or [neutral] * count, np.int64)


def _check(bodies: Bodies, where: Any) -> None:
    """Raise UserError for the first row whose image name leaves its folder or whose box is empty."""
    for row, name in enumerate(bodies.image):
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:
            raise UserError(
                f"{where(row)}: image name: expected a path below the image folder, found {name!r}; {_FETCH}"
            )
    empty = bodies.scale <= 0
    if empty.any():
        row = int(empty.argmax())
        raise UserError(f"{where(row)}: box: expected a scale above 0, found {bodies.scale[row]:g}; {_FETCH}")


def load_3dpw(folder: Path) -> Bodies:
    """Read the sequences of a split of 3DPW, .../sequenceFiles/<split>/*.pkl, as SPIN does.

    A row is a person in a frame with a valid camera pose. The box is that of the 2D points of a confidence above 0,
    enlarged by 1.2; a frame with less than two such points has no box and is left out. The root's rotation is turned
    from the world to the camera. The gender is male for "m" and else female. Image names are
    <sequence>/image_%05d.jpg, below 3DPW's imageFiles.

    Raises:
        UserError: see `load_bodies`.
    """
    paths = sorted(folder.glob("*.pkl"))
    if not paths:
        raise UserError(f"{folder}: no *.pkl; expected 3DPW's sequenceFiles of a split; get 3DPW or run prepare")
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "pose", "shape", "points", "gender")}
    for path in paths:
        sequence = _Sequence(path)
        for person in range(sequence.people):
            for name, values in sequence.frames(person).items():
                rows[name].extend(values)
    points = np.array(rows["points"]).reshape(-1, 18, 3)
    centre, scale = _boxes(points)
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
        gender=_genders(rows["gender"], count),
    )
    _check(bodies, lambda row: f"{folder}: image {bodies.image[row]}")
    return bodies


def _boxes(points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (N, 2) and scales (N,) of the boxes around the points (N, K, 3) of a confidence above 0."""
    seen = points[:, :, 2:] > 0
    low = np.where(seen, points[:, :, :2], np.inf).min(1)
    high = np.where(seen, points[:, :, :2], -np.inf).max(1)
    return (low + high) / 2, _MARGIN * (high - low).max(1) / BOX_UNIT


class _Sequence:
    """A sequence file of 3DPW, checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keys = ("sequence", "betas", "poses", "genders", "poses2d", "cam_poses", "campose_valid")
        content = load_pickle(path, keys)
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a dict with {', '.join(keys)}, found {type(content).__name__}; {_FETCH}")
        missing = [key for key in keys if key not in content]
        if missing:
            raise UserError(f"{path}: no field {', '.join(missing)}; expected a sequence of 3DPW; {_FETCH}")
        self.content = content
        self.people = len(content["poses"])
        for key in ("betas", "genders", "poses2d", "campose_valid"):
            if len(content[key]) != self.people:
                raise UserError(
                    f"{path}: field '{key}': expected {self.people} people as in 'poses', found {len(content[key])}; "
                    f"{_FETCH}"
                )
        cameras = content["cam_poses"]
        self.camera = self._numbers("cam_poses", cameras, (len(cameras), 4, 4))

    def _numbers(self, field: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub" or array.shape != shape:
            raise UserError(
                f"{self.path}: field '{field}': expected finite numbers of shape {shape}, found {array.dtype} of shape "
                f"{array.shape}; {_FETCH}"
            )
        return array.astype(np.float64)

    def _check_finite(self, field: str, values: NDArray[np.float64], frames: NDArray[np.int64]) -> None:
        """Raise UserError for the first of some frames with a NaN; what is in the others does not matter."""
        wrong = ~_finite_rows(values[frames])
        if wrong.any():
            raise UserError(
                f"{self.path}: frame {frames[wrong.argmax()]} (counted from 0): field '{field}': expected finite "
                f"numbers; {_FETCH} ({int(wrong.sum())} frames are wrong)"
            )

    def frames(self, person: int) -> dict[str, list[Any]]:
        """Columns of the person's frames that count."""
        content, count = self.content, len(self.camera)
        pose = self._numbers(f"poses[{person}]", content["poses"][person], (count, _POSE))
        points = self._numbers(f"poses2d[{person}]", content["poses2d"][person], (count, 3, 18)).transpose(0, 2, 1)
        valid = self._numbers(f"campose_valid[{person}]", content["campose_valid"][person], (count,)) > 0
        betas = np.asarray(content["betas"][person])
        betas = self._numbers(f"betas[{person}]", betas, (max(betas.size, NUM_SHAPES),))[:NUM_SHAPES]
        frames = np.flatnonzero(valid & ((points[:, :, 2] > 0).sum(1) > 1))
        self._check_finite("cam_poses", self.camera, frames)
        self._check_finite(f"poses[{person}]", pose, frames)
        self._check_finite(f"poses2d[{person}]", points, frames)
        if not np.isfinite(betas).all():
            raise UserError(f"{self.path}: field 'betas[{person}]': expected finite numbers; {_FETCH}")
        turned = self.camera[frames, :3, :3] @ to_matrix(pose[frames, :3])
        pose = np.concatenate([to_axis_angle(turned), pose[frames, 3:]], 1)
        return {
            "image": [f"{content['sequence']}/image_{frame:05d}.jpg" for frame in frames],
            "pose": list(pose),
            "shape": [betas] * len(frames),
            "points": list(points[frames]),
            "gender": ["m" if content["genders"][person] == "m" else "f"] * len(frames),
        }


def load_eft(path: Path) -> Bodies:
    """Read a JSON of EFT's pseudo-truth. Image names are those of the file, below the data set's image folder.

    Raises:
        UserError: see `load_bodies`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; get it with EFT (github.com/facebookresearch/eft)") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); fetch the file again") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise UserError(f"{path}: expected an object with the list 'data'; {_FETCH}")
    records = content["data"]
    fields = {"parm_pose": (24, 3, 3), "parm_shape": (10,), "bbox_center": (2,), "bbox_scale": ()}
    columns: dict[str, list[NDArray]] = {name: [] for name in (*fields, "gt_keypoint_2d")}
    for number, record in enumerate(records):
        where = f"{path}: record {number} (counted from 0)"
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected an object; {_FETCH}")
        where += f", annotId {record['annotId']}" if "annotId" in record else ""
        if not isinstance(record.get("imageName"), str):
            raise UserError(f"{where}: field 'imageName': expected a text; {_FETCH}")
        for name, shape in fields.items():
            columns[name].append(_eft_numbers(where, name, record.get(name), shape))
        points = record.get("gt_keypoint_2d", np.zeros((NUM_KEYPOINTS, 3)))
        columns["gt_keypoint_2d"].append(_eft_numbers(where, "gt_keypoint_2d", points, (NUM_KEYPOINTS, 3)))
        rotation = columns["parm_pose"][-1]
        if np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() > 0.01:
            raise UserError(f"{where}: field 'parm_pose': expected rotation matrices; {_FETCH}")
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
        gender=_genders([], count),
    )
    _check(bodies, lambda row: f"{path}: record {row} (counted from 0)")
    return bodies


def _eft_numbers(where: str, field: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fi" or array.shape != shape or not np.isfinite(array).all():
        raise UserError(
            f"{where}: field '{field}': expected finite numbers of shape {shape}, found {values!r:.60}; {_FETCH}"
        )
    return array.astype(np.float64)
