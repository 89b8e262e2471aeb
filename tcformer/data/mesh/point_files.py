"""Read the official annotation files of datasets with 2D points only as `Bodies`: LSP, LSP-Extended, MPII, COCO.

People are selected as in SPIN (github.com/nkolot/SPIN, datasets/preprocess). Unlike in SPIN, points that LSP-Extended
marks as invisible are not used, because their positions are invented.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcformer.body.joints import NUM_JOINTS, NUM_OPENPOSE, NUM_SHAPES
from tcformer.checks import REPAIR, check_finite_rows, is_count, number_array
from tcformer.data.crops import SCALE_UNIT
from tcformer.data.images import is_image_name
from tcformer.data.mesh.bodies import (
    MARGIN,
    NUM_KEYPOINTS,
    NUM_POINTS_3D,
    Bodies,
    boxes_around,
    check_bodies,
    genders,
)
from tcformer.errors import UserError

#: Index among SPIN's 24 joints of each point of a dataset.
LSP_14: Final = tuple(range(14))
MPII_16: Final = (0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11)
COCO_17: Final = (19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0)

_LSP_TRAINING = 1000  # images of LSP's training set
_LIMBS_OF_COCO = slice(5, 17)


def load_lsp(path: Path, *, test: bool = False) -> Bodies:
    """Read joints.mat of LSP or LSP-Extended, with the image names from the folder beside it.

    The training set of LSP is im0001.jpg to im1000.jpg, its test set the rest. All of LSP-Extended is for training.

    That folder is images/ or, if it does not exist (HR-LSPET), the folder of the file. The image names in ascending
    order correspond to the columns of the file. A person with less than two visible points has no box and is dropped.

    Args:
        path: the file.
        test: whether to read the test set instead of the training set.

    Raises:
        UserError: the file cannot be read, or the number of its columns is not the number of images.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(f"{path}: no such file; get LSP or LSP-Extended, or remove it from the mixture")
    try:
        joints = np.asarray(loadmat(path, variable_names=["joints"])["joints"])
    except Exception as error:  # scipy raises many types for a broken file
        raise UserError(f"{path}: cannot be read as LSP's joints.mat ({error}); download the file again") from error
    extended = joints.shape[:2] == (14, 3)
    right = joints.ndim == 3 and (extended or joints.shape[:2] == (3, 14)) and joints.dtype.kind in "fiub"
    if not right:
        found = f"{joints.dtype} of shape {joints.shape}"
        raise UserError(f"{path}: joints: expected (14, 3, N) or (3, 14, N) numbers, found {found}; {REPAIR}")
    joints = joints.astype(np.float64)
    points = joints.transpose(2, 0, 1) if extended else joints.transpose(2, 1, 0)  # (N, 14, 3)
    folder = path.parent / "images"
    folder = folder if folder.is_dir() else path.parent
    names = sorted(each.name for each in folder.iterdir() if is_image_name(each.name, (".jpg", ".png")))
    if len(names) != len(points):
        raise UserError(
            f"{path}: {len(points)} people, but {folder} contains {len(names)} images; expected one image for each "
            f"person; unpack the whole archive"
        )
    # LSP-Extended marks visible points. LSP marks invisible ones, whose positions are annotated as well.
    seen = points[:, :, 2] > 0 if extended else np.ones(points.shape[:2], bool)
    check_finite_rows(
        points[:, :, :2], lambda row: f"{path}: column {row} (counted from 0), {names[row]}", rows="columns"
    )
    in_test = np.array([not extended and int(re.sub(r"\D", "", f"0{name}")) > _LSP_TRAINING for name in names], bool)
    kept = np.flatnonzero((seen.sum(1) > 1) & (in_test == test))
    labelled = np.concatenate([points[:, :, :2], seen[:, :, None]], 2)[kept]
    centre, scale = boxes_around(labelled)
    return _bodies(path, [names[row] for row in kept], labelled, LSP_14, centre, scale)


def load_mpii(path: Path, records: list[Any]) -> Bodies:
    """Read HRNet's JSON list of MPII: the people with all 16 points.

    Boxes are larger than MPII's by a quarter, and lower by 15 pixels for each unit of its scale, as in Stacked
    Hourglass and SPIN. The coordinates in the file are counted from 1.

    Args:
        path: the file, for messages.
        records: the content of the file.

    Raises:
        UserError: a field is missing or has the wrong form.
    """
    names, points, centres, scales = [], [], [], []
    for number, record in enumerate(records):
        where = f"{path}: record {number} (counted from 0)"
        field = partial(_field, where, _record(where, record))
        joints, seen = field("joints", (16, 2)), field("joints_vis", (16,)) > 0
        centre, scale = field("center", (2,)), field("scale", ())
        if not isinstance(record.get("image"), str):
            raise UserError(f"{where}: field 'image': expected a string; {REPAIR}")
        if not seen.all():
            continue
        names.append(record["image"])
        points.append(np.concatenate([joints - 1, np.ones((16, 1))], 1))
        centres.append(centre + [0, 15 * scale] - 1)
        scales.append(1.25 * scale)
    return _bodies(path, names, np.array(points), MPII_16, np.array(centres), np.array(scales))


def load_coco(path: Path, content: dict[str, Any]) -> Bodies:
    """Read the people of COCO (person_keypoints_*.json) whose 12 limb joints are all labelled.

    Boxes are COCO's, enlarged by 1.2. Crowds are dropped.

    Args:
        path: the file, for messages.
        content: of the file.

    Raises:
        UserError: a field is missing or has the wrong form.
    """
    files: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    if not isinstance(content["images"], list):
        raise UserError(f"{path}: field 'images': expected a list; {REPAIR}")
    for number, image in enumerate(content["images"]):
        where = f"{path}: image {number} (counted from 0)"
        if not isinstance(_record(where, image).get("file_name"), str) or "id" not in image:
            raise UserError(f"{where}: expected an 'id' and a 'file_name'; {REPAIR}")
        if not is_count(image.get("id"), 0) or image["id"] in files:
            raise UserError(
                f"{where}: field 'id': expected an integer of at least 0 that no other image has, found "
                f"{image.get('id')!r:.60}; {REPAIR}"
            )
        files[image["id"]] = image["file_name"]
        if is_count(image.get("width"), 1) and is_count(image.get("height"), 1):
            sizes[image["id"]] = (image["width"], image["height"])
    names, points, centres, scales, image_sizes = [], [], [], [], []
    for number, record in enumerate(content["annotations"]):
        number_of = f"number {number} (counted from 0)"
        where = f"{path}: annotation {_record(f'{path}: annotation {number_of}', record).get('id', number_of)!s:.60}"
        if record.get("iscrowd"):
            continue
        flat = _field(where, record, "keypoints", (51,)).reshape(17, 3)
        left, top, width, height = _field(where, record, "bbox", (4,))
        if not (flat[_LIMBS_OF_COCO, 2] > 0).all():
            continue
        if not is_count(record.get("image_id"), 0) or record["image_id"] not in files:
            raise UserError(
                f"{where}: field 'image_id': expected the id of an image of this file, found "
                f"{record.get('image_id')!r:.60}; {REPAIR}"
            )
        names.append(files[record["image_id"]])
        if record["image_id"] in sizes:
            image_sizes.append(sizes[record["image_id"]])
        points.append(np.concatenate([flat[:, :2], flat[:, 2:] > 0], 1))
        centres.append((left + width / 2, top + height / 2))
        scales.append(MARGIN * max(width, height) / SCALE_UNIT)
    bodies = _bodies(path, names, np.array(points), COCO_17, np.array(centres), np.array(scales))
    all_known = bool(names) and len(image_sizes) == len(names)
    return replace(bodies, image_size=np.array(image_sizes, np.int64)) if all_known else bodies


def _field(where: str, record: dict[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return number_array(f"{where}: field '{name}'", record.get(name), shape)


def _record(where: str, record: object) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object; {REPAIR}")
    return record


def _bodies(
    path: Path,
    names: list[str],
    points: NDArray[np.float64],
    places: tuple[int, ...],
    centre: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> Bodies:
    """Make `Bodies` of people of whom only 2D points are known.

    Args:
        path: the file, for messages.
        names: (N) images.
        points: (N, K, 3) x, y in image pixels, and 1 for labelled points, else 0.
        places: (K,) index of each point among SPIN's 24.
        centre: (N, 2) of the boxes.
        scale: (N,) of the boxes.
    """
    count = len(names)
    keypoints = np.zeros((count, NUM_KEYPOINTS, 3), np.float32)
    points = points.reshape(count, len(places), 3)
    keypoints[:, [NUM_OPENPOSE + place for place in places]] = np.where(points[:, :, 2:] > 0, points, 0)
    bodies = Bodies(
        image=tuple(names),
        centre=centre.reshape(count, 2),
        scale=scale.reshape(count),
        pose=np.zeros((count, 3 * NUM_JOINTS), np.float32),
        shape=np.zeros((count, NUM_SHAPES), np.float32),
        has_smpl=np.zeros(count, bool),
        keypoints=keypoints,
        joints=np.zeros((count, NUM_POINTS_3D, 4), np.float32),
        gender=genders([], count),
    )
    check_bodies(bodies, lambda row: f"{path}: image {bodies.image[row]}")
    return bodies
