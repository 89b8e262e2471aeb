"""The generated faces against WFLW's format, and their landmarks and attributes against the pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tcformer.synthetic import GenerateFace, generate_face
from tcformer.synthetic.body import load_body
from tcformer.synthetic.occluders import OCCLUDERS, make_occluder
from tcformer.synthetic.portrait import Attributes, Portrait, PortraitChoice, draw_portrait

Options = Callable[..., GenerateFace]

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
PLAIN = Attributes(*[False] * 6)
CHOICE = PortraitChoice((128, 128), (0.55, 0.65), 8.0, (40.0, 60.0), 4.0, 4.0, 0.3, 0.0, (1.0, 1.0), 2)


def lines(root: Path, split: str) -> list[list[str]]:
    return [line.split(" ") for line in (root / LISTS / f"list_98pt_rect_attr_{split}.txt").read_text().splitlines()]


def points_of(line: list[str]) -> np.ndarray:
    return np.array(line[:196], float).reshape(98, 2)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def portraits(attribute: str, count: int = 6, choice: PortraitChoice = CHOICE) -> list[tuple[Portrait, Portrait]]:
    """The same faces without and with an attribute."""
    body = load_body()
    with_it = PLAIN._replace(**{attribute: True})
    return [
        tuple(draw_portrait(body, attributes, choice, np.random.default_rng([5, i])) for attributes in (PLAIN, with_it))
        for i in range(count)
    ]


def test_same_bytes_in_any_order(faces: Path, face_options: Options, tmp_path: Path) -> None:
    generate_face(tmp_path, face_options(), map=lambda f, items: [f(item) for item in reversed(list(items))])
    assert files(tmp_path) == files(faces)


def test_a_face_depends_on_seed_split_and_index_alone(faces: Path, face_options: Options, tmp_path: Path) -> None:
    generate_face(tmp_path / "fewer", face_options(train_images=1, test_images=1))
    for split in ("train", "test"):
        assert lines(tmp_path / "fewer", split) == lines(faces, split)[:1]
    fewer, more = files(tmp_path / "fewer"), files(faces)
    pictures = [name for name in fewer if name.endswith(".jpg")]
    assert len(pictures) == 2 and all(fewer[name] == more[name] for name in pictures)
    generate_face(tmp_path / "other", face_options(train_images=1, test_images=0, seed=4))
    assert lines(tmp_path / "other", "train") != lines(tmp_path / "fewer", "train")
    assert lines(tmp_path / "fewer", "train")[0][:196] != lines(tmp_path / "fewer", "test")[0][:196]


def test_lines_have_the_official_fields(faces: Path) -> None:
    for split, count in (("train", 8), ("test", 6)):
        found = lines(faces, split)
        assert len(found) == count == len({line[206] for line in found})
        for line in found:
            assert len(line) == 207
            assert all(re.fullmatch(r"\d+\.\d{6}", field) for field in line[:196])
            assert all(re.fullmatch(r"\d+", field) for field in line[196:200])
            assert all(field in ("0", "1") for field in line[200:206])
            assert re.fullmatch(r"\d+--(\w+)/\d+_\1_\d+\.jpg", line[206])
            picture = cv2.imread(str(faces / "WFLW_images" / line[206]))
            assert picture.shape == (112, 128, 3)
            points, box = points_of(line), np.array(line[196:200], int)
            assert (points >= 0).all() and (points <= [127, 111]).all()
            assert (box >= 0).all() and (box[2:] > box[:2]).all() and (box[[2, 3]] < [128, 112]).all()
            assert 0.5 * 112 - 1 <= np.ptp(points, axis=0).max() <= 0.85 * 112


def test_a_line_is_written_as_the_official_one(faces: Path, samples: Path) -> None:
    def forms(line: list[str]) -> list[str]:
        return [re.sub(r"\d+", "9", field) for field in line[:206]]

    official = (samples / "wflw" / LISTS / "list_98pt_rect_attr_test.line1_official.txt").read_text().split()
    assert forms(lines(faces, "test")[0]) == forms(official)


def test_both_splits_have_every_attribute(faces: Path, face_options: Options, tmp_path: Path) -> None:
    for split in ("train", "test"):
        flags = np.array([line[200:206] for line in lines(faces, split)], int)
        assert flags.any(0).all() and not flags.all(0).any()
    generate_face(tmp_path, face_options(train_images=6, test_images=0, blur_fraction=0.0))
    flags = np.array([line[200:206] for line in lines(tmp_path, "train")], int)
    assert not flags[:, 5].any() and flags[:, :5].any(0).all()


def test_landmarks_are_in_wflws_order() -> None:
    for face, _ in portraits("blur"):
        x, y = face.points.T
        assert (np.diff(x[[0, 60, 64, 68, 72, 32]]) > 0).all()  # image-left first, eye corners inwards
        assert (np.diff(x[33:38]) > 0).all() and (np.diff(x[42:47]) > 0).all()  # upper edges of the brows
        assert x[[96, 57, 97]].tolist() == sorted(x[[96, 57, 97]])
        for upper, lower in (((35, 44), (62, 70)), ((62, 70), (66, 74)), ((51,), (54,)), ((54,), (57,))):
            assert (y[list(upper)] < y[list(lower)]).all()
        assert (np.diff(y[[57, 79, 90, 94, 85, 16]]) > 0).all()  # nose, lips from outside to inside, chin
        assert (np.diff(x[55:60]) > 0).all() and (np.diff(x[[76, 77, 78, 79, 80, 81, 82]]) > 0).all()
        # The contour, from eye to eye, goes around nose and mouth.
        contour = face.points[:33].astype(np.float32)
        inner = np.concatenate([face.points[55:60], face.points[76:96]])
        assert all(cv2.pointPolygonTest(contour, (float(a), float(b)), False) >= 0 for a, b in inner)


def test_pupils_are_dark_and_lie_between_the_lids() -> None:
    from dataclasses import replace

    # The same pictures twice as large and looked at closely.
    for face, _ in portraits("blur", choice=replace(CHOICE, size=(256, 256))):
        image = face.image.astype(float).mean(2)
        for pupil, eye in ((96, slice(60, 68)), (97, slice(68, 76))):
            outline = face.points[eye].astype(np.float32)
            at = face.points[pupil]
            assert cv2.pointPolygonTest(outline, (float(at[0]), float(at[1])), True) > -0.5
            mask = np.zeros(image.shape, np.uint8)
            cv2.fillPoly(mask, [np.rint(outline - 0.5).astype(np.int32)], 1)
            column, row = np.floor(at).astype(int)
            around = image[row - 1 : row + 2, column - 1 : column + 2].min()
            assert around < np.percentile(image[mask > 0], 30)


def test_make_up_is_on_lips_lids_and_cheeks() -> None:
    for plain, made_up in portraits("make_up"):
        np.testing.assert_array_equal(plain.points, made_up.points)
        lips = np.zeros(plain.image.shape[:2], np.uint8)
        cv2.fillPoly(lips, [np.rint(plain.points[76:88] - 0.5).astype(np.int32)], 1)
        changed = np.abs(plain.image.astype(int) - made_up.image).sum(2)
        assert np.median(changed[lips > 0]) > 40
        # Lipstick stops at the landmarks of the outer lip.
        near = cv2.dilate(lips, np.ones((7, 7), np.uint8))
        ring = (cv2.dilate(lips, np.ones((13, 13), np.uint8)) > 0) & (near == 0)
        assert np.median(changed[ring]) < 0.5 * np.median(changed[lips > 0])


def test_large_pose_narrows_the_face() -> None:
    def eyes_to_height(face: Portrait) -> float:
        return float(np.linalg.norm(face.points[60] - face.points[72]) / np.ptp(face.points[:, 1]))

    ratios = np.array([[eyes_to_height(face) for face in pair] for pair in portraits("pose")])
    assert (ratios[:, 1] < 0.8 * ratios[:, 0]).all()


def test_the_turned_away_jaw_lies_on_the_outline() -> None:
    """No landmark of the contour may be covered by the head's near side: all are at its rim or on its front."""
    for _, turned in portraits("pose"):
        contour, eyes = turned.points[:33], turned.points[[60, 72]]
        across = (eyes[1] - eyes[0]) / np.linalg.norm(eyes[1] - eyes[0])
        nose_side = contour[16] @ across
        far = (
            contour[:16]
            if abs(contour[8] @ across - nose_side) < abs(contour[24] @ across - nose_side)
            else contour[17:]
        )
        # On the far side all points of eyes, brows and lips but the nose lie within the contour.
        inner = turned.points[np.r_[33:51, 60:98]]
        rows = (inner[:, 1] > far[:, 1].min()) & (inner[:, 1] < far[:, 1].max())
        order = np.argsort(far[:, 1])
        edge = np.interp(inner[rows, 1], far[order, 1], far[order, 0])
        side = np.sign((far.mean(0) - contour.mean(0))[0])
        assert (side * (edge - inner[rows, 0]) > -2.5).all()


def test_expressions_move_the_mouth_or_eyes() -> None:
    def shape(face: Portrait) -> np.ndarray:
        eyes = np.linalg.norm(face.points[60] - face.points[72])
        return (face.points[60:] - face.points[54]) / eyes

    moved = [np.abs(shape(plain) - shape(expressive)).max() for plain, expressive in portraits("expression", 10)]
    assert min(moved) > 0.02 and np.median(moved) > 0.08


def test_hard_light_changes_the_whole_face() -> None:
    for plain, hard in portraits("illumination", 12):
        np.testing.assert_array_equal(plain.points, hard.points)
        (x0, y0), (x1, y1) = np.floor(plain.points.min(0)).astype(int), np.ceil(plain.points.max(0)).astype(int)
        change = np.abs(plain.image[y0:y1, x0:x1].astype(int) - hard.image[y0:y1, x0:x1])
        assert change.mean() > 18


def test_blur_takes_the_edges_away() -> None:
    for plain, blurred in portraits("blur", 9):
        sharp = [cv2.Laplacian(cv2.GaussianBlur(p.image, (0, 0), 0.7), cv2.CV_64F).var() for p in (plain, blurred)]
        assert sharp[1] < 0.5 * sharp[0]


def test_something_lies_over_landmarks() -> None:
    covered = []
    for plain, hidden in portraits("occlusion", 12):
        np.testing.assert_array_equal(plain.points, hidden.points)
        column, row = np.floor(plain.points).astype(int).T
        changed = np.abs(plain.image.astype(int) - hidden.image).sum(2)
        covered.append((changed[row, column] > 60).mean())
    assert np.median(covered) > 0.12 and min(covered) > 0.0
    assert max(covered) < 1


@pytest.mark.parametrize("kind", OCCLUDERS)
def test_occluders_are_in_front_of_the_face(kind: str) -> None:
    from tcformer.synthetic.person import make_person
    from tcformer.synthetic.pose import PoseChoice

    body = load_body()
    person = make_person(body, PoseChoice("stand", "down", 0.0), np.random.default_rng(2))
    points = body.face98.on(person.skin).astype(float)
    middle = points.mean(0)
    eye = middle + person.facing
    vertices, triangles = make_occluder(body, person, points, eye, kind, np.random.default_rng(3)).mesh()
    assert np.isfinite(vertices).all() and triangles.max() == len(vertices) - 1
    forward = (vertices - middle) @ person.facing
    assert forward.max() > ((points - middle) @ person.facing).max() - 0.03
    assert np.linalg.norm(vertices - middle, axis=1).max() < 0.3
