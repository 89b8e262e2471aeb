"""Measure result files of any program against the annotations of each task's test set, or own keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcformer.checks import is_count, is_number, numbers_of_list, read_json
from tcformer.data.face.dataset import Faces, load_faces
from tcformer.data.face.landmarks import NUM_LANDMARKS
from tcformer.data.keypoints.annotations import Annotated, load_annotated
from tcformer.data.mesh.files import load_bodies
from tcformer.data.wholebody.dataset import load_people
from tcformer.data.wholebody.keypoints import NUM_KEYPOINTS
from tcformer.errors import UserError
from tcformer.metrics import evaluate_face, evaluate_wholebody, face_nme, wholebody_oks
from tcformer.metrics.keypoints import evaluate_keypoints
from tcformer.metrics.mesh import common_joints, human36m_truth, mpjpe, pa_mpjpe
from tcformer.metrics.points import PointTable
from tcformer.metrics.wholebody import STATS
from tcformer.tables import Table, group_rows

_HINT = "give the path of a result file"
_FACE_FORMAT = (
    'expected JSON records such as {"index": 0, "points": [[x, y], ...]}, or a text file with one face a line, in the '
    "order of the annotations, that begins with its 196 numbers"
)

_MESH_FORMAT = (
    'expected records such as {"index": 0, "joints": [[x, y, z], ...]}, each index once, with 17 joints of Human3.6M '
    'or the 14 evaluated ones in metres, or, with --body, {"index": 0, "pose": [72 numbers], "shape": [10 numbers]}'
)


def score_wholebody(results: Path, annotations: Path) -> tuple[dict[str, Any], list[Table]]:
    """Measure results in the format of COCO-WholeBody.

    Args:
        results: a JSON file.
        annotations: an official annotation file.

    Returns:
        All measures, and tables of the most important ones. The mean OKS and the errors of each keypoint are measured
        if all results name the annotated person in whose box they were made ("annotation_id").

    Raises:
        UserError: a file is missing or breaks its format.
    """
    from tcformer.tasks.wholebody.measures import keypoint_table

    people, records = load_people(annotations), read_json(results, _HINT)
    if not isinstance(records, list):
        raise UserError(f"{results}: expected a list of results, found {records!r:.60}; give a result file")
    measures: dict[str, Any] = evaluate_wholebody(people, records)
    tables = [Table("Average precision and recall", ("part", *STATS), group_rows(measures, STATS))]
    if records and all(is_count(record.get("annotation_id"), 1) for record in records):
        measures["oks"] = wholebody_oks(people, records)
        table = keypoint_table(people, records, np.arange(NUM_KEYPOINTS))
        measures["points"] = table.to_json()
        tables += [Table("In annotated boxes", ("", "mean OKS"), (("133 points", measures["oks"]),)), _points(table)]
    return measures, tables


def score_keypoints(
    results: Path, annotations: Path, category: str | None = None, points: Path | None = None
) -> tuple[dict[str, Any], list[Table]]:
    """Measure results in COCO's keypoint format against a COCO keypoint file with any points.

    Args:
        results: a JSON file: records with image_id, category_id, keypoints (x, y, score of each point) and score. Of
            results of several categories, those of the chosen one are measured.
        annotations: a COCO keypoint file, or a folder of .pts files.
        category: name of the category; None: the only one that has keypoints.
        points: a YAML file that describes the points, also their sigmas.

    Returns:
        All measures, and tables of the most important ones. The mean OKS and the errors of each keypoint are measured
        if all results name the annotated object in whose box they were made ("annotation_id").

    Raises:
        UserError: a file is missing or breaks its format.
    """
    from tcformer.tasks.keypoints.measures import keypoint_table

    folder = annotations if annotations.is_dir() else annotations.parent
    annotated = load_annotated(annotations, folder, category, points)
    records = _keypoint_records(results, annotated)
    if not _are_in_annotated_boxes(records, annotated):
        # An id that no annotation has: average precision matches results and annotations by OKS alone.
        apart = [{**record, "annotation_id": -1} for record in records]
        measures = {"all": evaluate_keypoints(annotated, apart)["all"]}
        return measures, [_precision(measures)]
    measures = evaluate_keypoints(annotated, records)
    table = keypoint_table(annotated, records)
    means = {name: measures[key] for name, key in (("mean OKS", "oks"), ("NME", "nme")) if key in measures}
    tables = [_precision(measures), Table("In annotated boxes", ("", *means), (_row(means),)), _points(table)]
    measures["points"] = table.to_json()
    return measures, tables


def _precision(measures: Mapping[str, Any]) -> Table:
    note = "With the sigmas of the dataset. none: the annotations hold no such object."
    return Table("Average precision and recall", ("", *STATS), (_row(measures["all"]),), note=note)


def _row(values: Mapping[str, float | None]) -> tuple[str | float, ...]:
    return "all points", *("none" if value is None else value for value in values.values())


def _keypoint_records(path: Path, annotated: Annotated) -> list[dict[str, Any]]:
    """The results of the category, checked."""
    content = read_json(path, _HINT)
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of results, found {content!r:.60}; give a result file")
    if not annotated.crops().annotation_id.size:
        raise UserError(f"{path}: the annotations hold no labelled object, so nothing can be measured; label some")
    ids = [record.get("category_id") if isinstance(record, dict) else None for record in content]
    several = annotated.category_id in ids  # `tcformer predict` gives the id 1 to the one category that it knows
    for place, (record, category) in enumerate(zip(content, ids)):
        other = several and is_count(category, 0) and category != annotated.category_id
        if not other and (problem := _keypoint_problem(record, annotated)):
            raise UserError(f"{path}: result {place} (counted from 0): {problem}; correct the record")
    if not several and len(set(ids)) > 1:
        raise UserError(
            f"{path}: the results have the category_ids {', '.join(sorted(set(map(str, ids))))}: expected "
            f"{annotated.category_id}, that of {annotated.points.category!r}; choose another --category"
        )
    return [record for record, category in zip(content, ids) if not several or category == annotated.category_id]


def _keypoint_problem(record: object, annotated: Annotated) -> str | None:
    """What is wrong with a result; None: nothing."""
    if not isinstance(record, dict):
        return f"expected an object, found {record!r:.60}"
    if not is_count(record.get("image_id"), 0) or record["image_id"] not in annotated.people.images:
        return f"field 'image_id': expected the id of an annotated image, found {record.get('image_id')!r:.40}"
    if not is_count(category := record.get("category_id"), 0):
        return f"field 'category_id': expected the id of a category, found {category!r:.40}"
    values, count = numbers_of_list(record.get("keypoints")), len(annotated.points)
    if values is None or values.shape != (3 * count,) or not np.isfinite(values).all():
        found = f"{record.get('keypoints')!r:.40}" if values is None or values.ndim != 1 else f"{len(values)} numbers"
        return f"field 'keypoints': expected {3 * count} finite numbers (x, y, score of {count} points), found {found}"
    if not is_number(record.get("score")):
        return f"field 'score': expected a number, found {record.get('score')!r:.40}"
    return None


def _are_in_annotated_boxes(records: list[dict[str, Any]], annotated: Annotated) -> bool:
    """Whether each result names an annotated object of its image, each another one."""
    people = annotated.people
    images = dict(zip(people.annotation_id.tolist(), people.image_id.tolist()))
    named = [record.get("annotation_id") for record in records]
    return (
        bool(records)
        and all(is_count(number, 0) for number in named)
        and len(set(named)) == len(named)
        and all(images.get(record["annotation_id"]) == record["image_id"] for record in records)
    )


def score_mesh(results: Path, annotations: Path, body: Path | None = None) -> tuple[dict[str, Any], list[Table]]:
    """Measure bodies in space by the protocol of Human3.6M, annotated with joints, or 3DPW, annotated with bodies.

    Args:
        results: JSON records with "index", the row of the annotations, counted from 0; and with "joints", in metres:
            the 17 joints of Human3.6M's regressor, or the 14 evaluated ones relative to the pelvis
            (`tcformer.metrics.mesh.H36M_TO_J14`); or, with `body`, SMPL's "pose" (72) and "shape" (10), as
            `tcformer predict` writes them.
        annotations: an .npz of SPIN: with joints (S) in every row, such as h36m_valid_protocol2.npz, or with pose and
            shape in every row, such as 3dpw_test.npz, or 3DPW's folder of sequences.
        body: folder of the male, female and neutral body models, with Human3.6M's regressor.

    Returns:
        MPJPE and PA-MPJPE in millimetres, and a table of them.

    Raises:
        UserError: a file is missing or breaks its format, or a person has no result.
    """
    from tcformer.tasks.mesh.task import true_joints

    bodies = load_bodies(annotations)
    if len(bodies) and (bodies.joints[:, :, 3] > 0).any(1).all():
        true = human36m_truth(bodies.joints)
    elif len(bodies) and bodies.has_smpl.all() and body:
        true = true_joints(bodies, "3dpw", body, annotations)
    else:
        raise UserError(
            f"{annotations}: expected 3D joints (field 'S') in every row, as in h36m_valid_protocol2.npz; or pose and "
            "shape in every row, as in 3dpw_test.npz, and --body with the folder of the body models"
        )
    found = _bodies_found(results, annotations, len(true), body)
    measures = {"mpjpe": mpjpe(found, true), "pa_mpjpe": pa_mpjpe(found, true), "count": len(true)}
    return measures, [
        Table("Errors in mm", ("people", "MPJPE", "PA-MPJPE"), ((len(true), *list(measures.values())[:2]),))
    ]


def _bodies_found(results: Path, annotations: Path, count: int, body: Path | None) -> NDArray[np.float64]:
    """The evaluated joints (N, 14, 3) of the results, by row of the annotations."""
    from tcformer.body.joints import NUM_JOINTS, NUM_SHAPES
    from tcformer.body.model import load_joints
    from tcformer.body.rotations import to_matrix
    from tcformer.tasks.mesh.task import posed_joints

    joints: dict[int, NDArray[np.float64]] = {}
    posed: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for place, (index, record) in enumerate(_indexed(results)):
        given = {name: numbers_of_list(record.get(name)) for name in ("joints", "pose", "shape")}
        finite = {name: value for name, value in given.items() if value is not None and np.isfinite(value).all()}
        shapes = {name: value.shape for name, value in finite.items()}
        if index is not None and index not in joints and index not in posed:
            if shapes.get("joints") in ((17, 3), (14, 3)):
                value = finite["joints"]
                joints[index] = common_joints(value[None])[0] if len(value) == 17 else value
                continue
            if body and shapes.get("pose") == (3 * NUM_JOINTS,) and shapes.get("shape") == (NUM_SHAPES,):
                posed[index] = finite["pose"], finite["shape"]
                continue
        raise UserError(f"{results}: record {place} (counted from 0): {_MESH_FORMAT}; correct the record")
    missing = [index for index in range(count) if index not in joints and index not in posed]
    if missing:
        raise UserError(
            f"{results}: {len(missing)} of the {count} people of {annotations} have no result, the first is "
            f"person {missing[0]} (counted from 0); {_MESH_FORMAT}"
        )
    if body and posed:
        pose, shape = (np.stack(values) for values in zip(*posed.values()))
        rotations = to_matrix(pose.reshape(len(pose), NUM_JOINTS, 3))
        joints |= zip(posed, common_joints(posed_joints(load_joints(body), rotations, shape)))
    return np.stack([joints[index] for index in range(count)])


def _indexed(path: Path) -> list[tuple[int | None, dict[str, Any]]]:
    """The records of a file, each with its "index"; None: it has none."""
    content = read_json(path, _HINT)
    records = [
        record if isinstance(record, dict) else {} for record in (content if isinstance(content, list) else [content])
    ]
    return [(index if is_count(index := record.get("index"), 0) else None, record) for record in records]


def score_face(results: Path, annotations: Path) -> tuple[dict[str, Any], list[Table]]:
    """Measure landmarks of the faces of a WFLW list.

    Args:
        results: JSON records with "index" (the place in the list, counted from 0) and "points", or a text file with
            one face a line.
        annotations: an official list.

    Returns:
        All measures, and tables of the most important ones.

    Raises:
        UserError: a file is missing or breaks its format, or a face has no result.
    """
    from tcformer.tasks.face.measures import landmark_table

    faces = load_faces(annotations)
    points = _face_points(results, faces)
    measures: dict[str, Any] = dict(evaluate_face(face_nme(points, faces.points), faces.attributes))
    names = ("NME", "FR10", "AUC10", "count")
    tables = [Table("Faces with each attribute", ("faces", *names), group_rows(measures, names), digits=4)]
    table = landmark_table(points, faces)
    measures["points"] = table.to_json()
    return measures, [*tables, _points(table)]


def _points(table: PointTable) -> Table:
    """The means over the parts."""
    rows = tuple((part, *means.values()) for part, means in table.by_part().items())
    note = "; ".join(f"{name}: {meaning}" for name, meaning in table.meaning.items())
    return Table("Errors of the points", ("part", *table.measures), rows, note=note)


def _face_points(path: Path, faces: Faces) -> NDArray[np.float64]:
    rows = _json_rows(path) if path.suffix == ".json" else _text_rows(path)
    missing = [index for index in range(len(faces)) if index not in rows]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of the {len(faces)} faces of {faces.source} have no result, the first is face "
            f"{missing[0]} (counted from 0); {_FACE_FORMAT}"
        )
    return np.stack([rows[index] for index in range(len(faces))])


def _json_rows(path: Path) -> dict[int, NDArray[np.float64]]:
    rows = {}
    for place, (index, record) in enumerate(_indexed(path)):
        if index is None:
            raise UserError(f"{path}: record {place} (counted from 0) has no 'index'; {_FACE_FORMAT}")
        rows[index] = _points_of(numbers_of_list(record.get("points")), f"{path}: record {place} (counted from 0)")
    return rows


def _text_rows(path: Path) -> dict[int, NDArray[np.float64]]:
    try:
        lines = [line.replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {_HINT}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); {_FACE_FORMAT}") from error
    rows = {}
    for index, fields in enumerate(filter(None, lines)):
        try:
            numbers = np.array([float(field) for field in fields[: 2 * NUM_LANDMARKS]])
        except ValueError:
            numbers = None
        rows[index] = _points_of(numbers, f"{path}: face {index} (counted from 0)")
    return rows


def _points_of(numbers: NDArray[np.float64] | None, where: str) -> NDArray[np.float64]:
    if numbers is None or numbers.size != 2 * NUM_LANDMARKS or not np.isfinite(numbers).all():
        found = "something else" if numbers is None else f"{numbers.size} numbers"
        raise UserError(f"{where}: expected 98 x, y in pixels, found {found}; {_FACE_FORMAT}")
    return numbers.reshape(NUM_LANDMARKS, 2)
