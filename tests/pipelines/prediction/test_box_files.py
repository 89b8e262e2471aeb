"""Files with boxes, in the formats that people have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.prediction.box_files import BoxFile
from tcformer.errors import UserError


def box_file(folder: Path, content: object, least_score: float = 0.0) -> BoxFile:
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return BoxFile(path, least_score)


@pytest.mark.parametrize(
    "content",
    [
        [[1, 2, 3, 4]],
        [1, 2, 3, 4],
        {"000000000042.jpg": [[1, 2, 3, 4]]},
        {"000000000042.jpg": [1, 2, 3, 4]},
        {"val2017/000000000042.jpg": [[1, 2, 3, 4]]},
        [{"image_id": 42, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}],
        [{"file_name": "000000000042.jpg", "box": [1, 2, 3, 4]}],
    ],
)
def test_each_format_gives_the_boxes_of_a_picture(tmp_path: Path, content: object) -> None:
    boxes = box_file(tmp_path, content).of(Path("/data/val2017/000000000042.jpg"))
    assert boxes.xywh.tolist() == [[1, 2, 3, 4]]


def test_of_coco_s_annotations_the_people_are_taken(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 11, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [1, 2, 3, 4]},
            {"id": 12, "image_id": 7, "category_id": 1, "iscrowd": 1, "bbox": [1, 2, 3, 4]},
            {"id": 13, "image_id": 7, "category_id": 2, "iscrowd": 0, "bbox": [1, 2, 3, 4]},
            {"id": 14, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [1, 2, 0, 0]},
        ],
    }
    file = box_file(tmp_path, content)
    assert file.of(Path("x/a.jpg")).ids.tolist() == [11]
    assert file.image_id(Path("x/a.jpg")) == 7
    assert len(file.of(Path("x/b.jpg"))) == 0


def test_detections_below_the_least_score_are_dropped(tmp_path: Path) -> None:
    records = [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": score} for score in (0.2, 0.8)]
    assert box_file(tmp_path, records, 0.5).of(Path("1.jpg")).scores.tolist() == [0.8]
    with pytest.raises(UserError, match=r"no box for any of the 1 pictures, such as 1\.jpg"):
        box_file(tmp_path, records, 0.9).check_pictures([Path("1.jpg")])


def test_faces_of_a_list_keep_their_place(samples: Path) -> None:
    file = BoxFile(samples / "wflw/WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt")
    names = sorted((samples / "wflw/WFLW_images").rglob("*.jpg"))
    numbers = sorted(number for name in names for number in file.of(name).ids.tolist())
    assert numbers == list(range(len(numbers))) and numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "contains no boxes"),
        ("text", "contains no boxes"),
        ([[1, 2, 3]], "box 0"),
        ([[1, 2, 3, -4]], "above 0"),
        ({"a.jpg": 3}, "expected a list"),
        ([{"bbox": [1, 2, 3, 4]}], "neither"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": "high"}], "expected a number"),
        ({"images": [{}], "annotations": []}, "an object with 'id'"),
        ({"images": [{"id": 1}], "annotations": [{"image_id": 2}]}, "annotation 0"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        box_file(tmp_path, content)
