"""COCO keypoint files with any points, and .pts files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcformer.data.keypoints.annotations import load_annotated
from tcformer.data.keypoints.points import IBUG68
from tcformer.data.keypoints.pts import coco_of_pts, read_pts
from tcformer.data.wholebody.keypoints import NAMES, SIGMAS
from tcformer.errors import UserError
from tests import own_points


def test_the_annotations_of_the_category_with_points_are_read(tmp_path: Path) -> None:
    found = load_annotated(own_points.write(tmp_path), tmp_path / "images")
    assert found.points.names == own_points.NAMES and found.category_id == 3
    assert found.people.keypoints.shape == (4, 5, 3) and found.people.keypoints[1, 2].tolist() == [0, 0, 0]
    crops = found.crops()
    assert len(crops) == 4
    labelled = found.people.keypoints[0, :, :2]
    low, high = labelled.min(0), labelled.max(0)
    assert crops.box[0].tolist() == [*low, *(high - low)], "without a bbox, the box around the points"
    assert (found.people.area > 0).all()


def test_boxes_and_areas_of_the_file_count(tmp_path: Path) -> None:
    tree = own_points.content()
    tree["annotations"][1] |= {"bbox": [2, 3, 50, 40], "area": 123.5}
    tree["annotations"][2] |= {"bbox": [2, 3, 50, 40], "iscrowd": 1}
    people = load_annotated(own_points.write(tmp_path, tree=tree), tmp_path).people
    assert people.box[0].tolist() == [2, 3, 50, 40] and people.area[0] == 123.5 and people.area[1] == 2000
    assert people.crowd.tolist() == [False, True, False, False]


def wrong_points(tree: dict[str, Any]) -> None:
    tree["annotations"][2]["keypoints"] = [1, 1, 2] * 4


def broken(place: str, field: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        tree[place][1][field] = value

    return change


@pytest.mark.parametrize(
    ("change", "category", "message"),
    [
        (wrong_points, None, "annotation 1: field 'keypoints': expected 15 numbers .*the 5 points.* found 12"),
        (broken("annotations", "keypoints", "x"), None, "annotation 0: field 'keypoints': expected 15 numbers"),
        (broken("annotations", "image_id", 77), None, "annotation 0: field 'image_id': expected the id of an image"),
        (broken("annotations", "bbox", [1, 2, 0, 3]), None, "annotation 0: field 'bbox': expected a width and height"),
        (broken("annotations", "area", -1), None, "annotation 0: field 'area'"),
        (broken("annotations", "id", 1), None, "annotation 1: field 'id': expected each id once"),
        (broken("images", "file_name", "/etc/x.jpg"), None, "image 1: field 'file_name': expected a path below"),
        (broken("categories", "keypoints", []), None, "no category has keypoints .categories: 'dog', 'cat'"),
        (broken("categories", "flip", [["left ear", "tail"]]), None, "'cat': flip names the point 'tail'"),
        (lambda tree: None, "horse", "there is no category 'horse': expected one of 'dog', 'cat'"),
        (lambda tree: None, "dog", "category 'dog': no names of the keypoints"),
        (lambda tree: tree.pop("categories"), None, "expected an object with the lists images, annotations, cat"),
    ],
)
def test_a_broken_file_is_one_clear_sentence(
    change: Callable[[dict[str, Any]], object], category: str | None, message: str, tmp_path: Path
) -> None:
    tree = own_points.content()
    change(tree)
    path = own_points.write(tmp_path, tree=tree)
    with pytest.raises(UserError, match=message) as caught:
        load_annotated(path, tmp_path, category)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_of_several_categories_one_is_chosen_by_name(tmp_path: Path) -> None:
    tree = own_points.content()
    tree["categories"][0]["keypoints"] = ["snout", "tail"]
    tree["annotations"][0]["keypoints"] = [3, 3, 2, 9, 9, 1]
    path = own_points.write(tmp_path, tree=tree)
    with pytest.raises(UserError, match=r"categories 'dog', 'cat' have keypoints: expected one; .*`category`"):
        load_annotated(path, tmp_path)
    dogs = load_annotated(path, tmp_path, "dog")
    assert dogs.points.names == ("snout", "tail") and dogs.people.keypoints.shape == (1, 2, 3)
    assert load_annotated(path, tmp_path, "cat").people.keypoints.shape == (4, 5, 3)


def test_the_standard_file_of_coco_is_read(samples: Path) -> None:
    path = samples / "coco/annotations/person_keypoints_val2017.json"
    found = load_annotated(path, samples / "coco/val2017")
    assert found.points.names == NAMES[:17] and found.points.category == "person"
    assert found.points.sigmas == tuple(SIGMAS[:17]), "known by their names"
    assert len(found.points.flip or ()) == 8 and len(found.points.skeleton) == 19
    assert len(found.crops()) > 10
    content = json.loads(path.read_text())
    assert len(found.people) == len([a for a in content["annotations"] if a.get("keypoints")])


def write_pts(path: Path, points: list[tuple[float, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    path.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{lines}\n}}\n")
    Image.fromarray(np.zeros((80, 90, 3), np.uint8)).save(path.with_suffix(".png"))


def face(count: int = 68) -> list[tuple[float, float]]:
    return [(10 + i / 2, 20 + i % 9) for i in range(count)]


def test_pts_files_of_68_points_are_faces(tmp_path: Path) -> None:
    for name in ("indoor/b 1.pts", "indoor/a.pts", "outdoor/c.pts"):
        write_pts(tmp_path / name, face())
    found = load_annotated(tmp_path, tmp_path)
    assert found.points.names == IBUG68.names and found.points.to_json() == IBUG68.to_json()
    assert [image[0] for image in found.people.images.values()] == ["indoor/a.png", "indoor/b 1.png", "outdoor/c.png"]
    assert found.people.images[1][1:] == (90, 80)
    assert found.people.keypoints[0, 0].tolist() == [9, 19, 2], "pixels of .pts files count from 1"
    content = coco_of_pts([tmp_path / "outdoor", tmp_path / "indoor"], tmp_path)
    (tmp_path / "faces.json").write_text(json.dumps(content))
    written = load_annotated(tmp_path / "faces.json", tmp_path)
    assert written.points.to_json() == IBUG68.to_json() and len(written.people) == 3


def test_pts_files_of_other_points_need_names(tmp_path: Path) -> None:
    write_pts(tmp_path / "a.pts", face(3))
    with pytest.raises(UserError, match="3 points, whose names are not known: expected the 68 of 300-W"):
        load_annotated(tmp_path, tmp_path)
    (tmp_path / "points.yaml").write_text("names: [left eye, right eye, chin]\nnormalise: [left eye, right eye]\n")
    points = load_annotated(tmp_path, tmp_path, None, tmp_path / "points.yaml").points
    assert points.names == ("left eye", "right eye", "chin") and points.flip == ((0, 1),) and points.normalise == (0, 1)
    write_pts(tmp_path / "b.pts", face(4))
    with pytest.raises(UserError, match=r"b\.pts: 4 points; expected 3"):
        load_annotated(tmp_path, tmp_path, None, tmp_path / "points.yaml")


def test_broken_pts_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pts"
    for text, message in (
        ("version: 1\nn_points: 2\n{\n1 2\n}\n", "expected 2 points, as n_points says, found 1"),
        ("n_points: 1\n{\n1 nan\n}\n", "point 1: expected two numbers, found 1 nan"),
        ("1 2\n3 4\n", "expected 'n_points: K'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_pts(path)
    path.write_text("n_points: 1\n{\n1 2\n}\n")
    (tmp_path / "points.yaml").write_text("names: [a]\n")
    with pytest.raises(UserError, match=r"a\.pts: no image a\.png or a\.jpg"):
        load_annotated(tmp_path, tmp_path, None, tmp_path / "points.yaml")
    with pytest.raises(UserError, match=r"no \.pts file"):
        coco_of_pts([tmp_path / "images"], tmp_path)
