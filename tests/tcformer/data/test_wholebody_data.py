import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcformer.data import collate
from tcformer.data.images import denormalise
from tcformer.data.wholebody.dataset import (
    WholebodyAugmentation,
    WholebodyDataset,
    annotated_crops,
    annotation_file,
    detected_crops,
    detection_file,
    image_folder,
    load_people,
)
from tcformer.data.wholebody.keypoints import FLIP, PARTS
from tcformer.errors import UserError

NONE = WholebodyAugmentation(
    shift_probability=0,
    shift=0,
    flip_probability=0,
    half_body_probability=0,
    half_body_points=8,
    scale=0,
    rotation=0,
    rotation_probability=0,
)
PAPER = WholebodyAugmentation(
    shift_probability=0.3,
    shift=0.16,
    flip_probability=0.5,
    half_body_probability=0.3,
    half_body_points=8,
    scale=0.5,
    rotation=40.0,
    rotation_probability=0.6,
)
LENGTHS = {"keypoints": 51, "foot_kpts": 18, "face_kpts": 204, "lefthand_kpts": 63, "righthand_kpts": 63}


def person(number: int = 1, **changes: Any) -> dict[str, Any]:
    points = {field: [float(20 + i % 30) if i % 3 < 2 else 1 for i in range(n)] for field, n in LENGTHS.items()}
    common = {"image_id": 7, "category_id": 1, "iscrowd": 0, "area": 900.0, "num_keypoints": 17}
    return {"id": number, "bbox": [10.0, 12.0, 30.0, 40.0], "segmentation": [], **common, **points, **changes}


def content(*people: dict[str, Any]) -> dict[str, Any]:
    image = {"id": 7, "file_name": "000000000007.jpg", "width": 80, "height": 60}
    return {"images": [image], "annotations": list(people), "categories": [{"id": 1, "name": "person"}]}


def with_value(field: str, position: int, value: float) -> dict[str, Any]:
    changed = person()
    changed[field][position] = value
    return changed


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (
            [person(face_kpts=[0.0] * 203)],
            r"annotation 1: field 'face_kpts': expected 204 numbers .* found 203",
        ),
        ([person(foot_kpts=None)], r"annotation 1: field 'foot_kpts': expected 18 numbers .* found None"),
        (
            [person(lefthand_kpts=[[1, 2, 3]] * 21)],
            r"'lefthand_kpts': expected 63 numbers .* found nested lists",
        ),
        ([person(lefthand_kpts=[[1, 2, 3], [1]])], r"'lefthand_kpts': expected 63 numbers"),
        ([person(keypoints=["1"] * 51)], r"'keypoints': expected 51 numbers"),
        ([person(keypoints=[None] * 51)], r"'keypoints': expected 51 numbers"),
        (
            [with_value("righthand_kpts", 4, float("nan"))],
            r"'righthand_kpts': expected finite numbers .* found \[.*nan",
        ),
        (
            [with_value("keypoints", 2, -1)],
            r"'keypoints': .* visibilities of at least 0, found \[20.0, 21.0, -1.0\]",
        ),
        ([person(bbox=[1, 2, -3, 4])], r"'bbox': expected a width and height above 0, found -3 by 4"),
        ([person(bbox=[1, 2, 3, 0.0])], r"'bbox': expected a width and height above 0, found 3 by 0"),
        ([person(bbox=[1, 2, 3])], r"'bbox': expected 4 finite numbers"),
        ([person(bbox=[1, 2, 3, float("inf")])], r"'bbox': expected 4 finite numbers"),
        ([person(5), person(5)], r"annotation 5: field 'id': expected each id once"),
        ([person(0)], r"annotation 0: field 'id': expected an integer above 0"),
        (
            [person(1, image_id=8)],
            r"annotation 1: field 'image_id': expected the id of an image of this file, found 8",
        ),
        ([person(1, image_id=[7])], r"field 'image_id'"),
        ([person(1, iscrowd=2)], r"field 'iscrowd': expected 0 or 1, found 2"),
        ([person(1, category_id=3)], r"field 'category_id': expected 1"),
        ([person(1, area=-1.0)], r"field 'area': expected a number"),
        ([person(0), person(3), person(3)], r"annotation 0: .*\(1 more records are wrong\)"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path: Path, people: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content(*people)))
    with pytest.raises(UserError, match=rf"people\.json: .*{message}"):
        load_people(path)
    with pytest.raises(UserError, match=message):
        load_people(content(*people))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": -1}, "image .* field 'id'"),
        ({"file_name": "../7.jpg"}, "image 7: field 'file_name': expected a path below the image folder"),
        ({"width": 0}, "image 7: field 'width': expected an integer above 0 .pixels., found 0"),
        ({"height": 1.5}, "image 7: field 'height'"),
    ],
)
def test_a_bad_image_record_is_named(change: dict[str, Any], message: str) -> None:
    bad = content()
    bad["images"][0].update(change)
    with pytest.raises(UserError, match=message):
        load_people(bad)


def test_an_image_id_given_twice_is_named() -> None:
    bad = content()
    bad["images"] *= 2
    with pytest.raises(UserError, match="image 7: field 'id': expected each id once"):
        load_people(bad)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', ""])
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "people.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"people\.json: "):
        load_people(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.json: no such file; expected the official COCO-WholeBody"):
        load_people(tmp_path / "gone.json")


def test_an_empty_file_gives_nobody() -> None:
    people = load_people(content())
    assert len(people) == 0 and people.keypoints.shape == (0, 133, 3)
    assert len(annotated_crops(people)) == 0


def test_loading_does_not_change_its_input() -> None:
    given = content(person())
    before = deepcopy(given)
    load_people(given)
    assert given == before


def test_fractions_count_as_labelled_and_points_are_in_order() -> None:
    given = person()
    given["lefthand_kpts"][:3] = [33.0, 44.0, 0.25]
    people = load_people(content(given))
    assert people.keypoints[0, 91].tolist() == [33, 44, 0.25]
    assert people.keypoints[0, PARTS["foot"]].ravel().tolist() == given["foot_kpts"]
    assert people.keypoints[0, PARTS["righthand"]].ravel().tolist() == given["righthand_kpts"]


def test_selection_and_boxes_are_mmposes() -> None:
    nobody = {"keypoints": [0] * 51}
    people = load_people(
        content(
            person(1, bbox=[-5.0, 10.0, 30.0, 100.0]),
            person(2, iscrowd=1),
            person(3, **nobody),
            person(4, **nobody, bbox=[1, 1, 4, 0]),
            person(5, bbox=[100.0, 10.0, 20.0, 20.0]),
            person(6, area=0.0),
            person(7, bbox=[70.0, 50.0, 30.0, 30.0]),
        )
    )
    crops = annotated_crops(people)
    assert crops.annotation_id.tolist() == [1, 7]
    assert crops.box.tolist() == [[0, 10, 24, 49], [70, 50, 9, 9]]


def test_missing_images_are_listed(tmp_path: Path) -> None:
    many = content()
    many["images"] = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 80, "height": 60} for i in range(14)]
    many["annotations"] = [person(i + 1, image_id=i) for i in range(14)]
    (tmp_path / "000000000000.jpg").touch()
    with pytest.raises(UserError, match=r"13 of 14 annotated images are missing: 000000000001.*10\.jpg, \.\.\.;"):
        WholebodyDataset(annotated_crops(load_people(many)), tmp_path, input_size=(64, 48), padding=1.25)
    with pytest.raises(UserError, match="14 of 14"):
        WholebodyDataset(annotated_crops(load_people(many)), tmp_path / "away", input_size=(64, 48), padding=1.25)


def test_detections_are_selected(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    good = {"bbox": [1.0, 2.0, 3.0, 4.0], "category_id": 1, "image_id": 7, "score": 0.5}
    others = [{"score": 0.1}, {"category_id": 2}, {"image_id": 9}, {"bbox": [0, 0, 5, 0]}]
    path.write_text(json.dumps([good, *({**good, **other} for other in others)]))
    crops = detected_crops(path, load_people(content()), least_score=0.2)
    assert crops.box.tolist() == [[1, 2, 3, 4]] and crops.score.tolist() == [0.5]
    assert crops.keypoints is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, -1, 2]}, "detection 1 .* field 'bbox': expected a width and height above 0"),
        ({"bbox": [0, 0, float("nan"), 2]}, "detection 1 .* field 'bbox': expected 4 finite numbers"),
        ({"score": None}, "detection 1 .* field 'score': expected a finite number"),
    ],
)
def test_a_bad_detection_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "boxes.json"
    good = {"bbox": [1.0, 2.0, 3.0, 4.0], "category_id": 1, "image_id": 7, "score": 0.5}
    path.write_text(json.dumps([good, {**good, **change}]))
    with pytest.raises(UserError, match=message):
        detected_crops(path, load_people(content()), least_score=0.0)


@pytest.fixture
def real(samples: Path) -> Path:
    """Root of the real dataset."""
    return samples / "coco_wholebody"


@pytest.fixture
def dataset(real: Path) -> WholebodyDataset:
    crops = annotated_crops(load_people(annotation_file(real, "val")))
    return WholebodyDataset(crops, image_folder(real, "val"), input_size=(128, 96), padding=1.25, augmentation=PAPER)


def test_counts_of_the_real_sample(real: Path) -> None:
    people = load_people(annotation_file(real, "val"))
    labelled = people.keypoints[..., 2] > 0
    assert len(people) == 26 and len(people.images) == 5
    counts = {part: int(labelled[:, rows].any(1).sum()) for part, rows in PARTS.items()}
    assert counts == {"body": 24, "foot": 16, "face": 13, "lefthand": 12, "righthand": 13}
    assert len(annotated_crops(people)) == 24
    assert len(detected_crops(detection_file(real), people, least_score=0.0)) == 118


def test_a_plain_sample_holds_the_person(dataset: WholebodyDataset) -> None:
    inside = []
    for i in range(len(dataset)):
        sample = dataset.sample(i, None)
        assert sample["image"].shape == (3, 128, 96) and sample["image"].dtype == np.float32
        points = sample["points"][sample["weights"] > 0]
        inside += ((points >= 0) & (points <= [96, 128])).all(1).tolist()
        assert (sample["points"][sample["weights"] == 0] == 0).all()
    # The annotators placed a hidden shoulder outside the visible segment's box.
    assert np.mean(inside) > 0.99


def test_a_sample_depends_on_its_generator_alone(dataset: WholebodyDataset) -> None:
    np.random.seed(0)
    first = dataset.sample(3, np.random.default_rng(5))
    np.random.seed(1)
    dataset.sample(4, np.random.default_rng(6))
    second = dataset.sample(3, np.random.default_rng(5))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    other = dataset.sample(3, np.random.default_rng(7))
    assert not np.array_equal(first["image"], other["image"])


def test_a_generator_without_augmentation_changes_nothing(dataset: WholebodyDataset) -> None:
    plain = dataset.sample(2, None)
    for augmentation in (None, NONE):
        dataset.augmentation = augmentation
        same = dataset.sample(2, np.random.default_rng(0))
        assert all(np.array_equal(plain[key], same[key]) for key in plain)


def test_a_flipped_sample_is_the_mirror_image(dataset: WholebodyDataset) -> None:
    dataset.augmentation = WholebodyAugmentation(
        shift_probability=0,
        shift=0,
        flip_probability=1,
        half_body_probability=0,
        half_body_points=8,
        scale=0,
        rotation=0,
        rotation_probability=0,
    )
    for i in range(0, len(dataset), 5):
        plain, flipped = dataset.sample(i, None), dataset.sample(i, np.random.default_rng(0))
        assert (plain["weights"] == flipped["weights"][FLIP]).all()
        # The crop's centre is at width / 2, so mirroring takes x to width - x.
        labelled = plain["weights"] > 0
        expected = np.stack([96 - plain["points"][:, 0], plain["points"][:, 1]], -1)
        assert np.allclose(flipped["points"][FLIP][labelled], expected[labelled], atol=1e-3)
        mirrored = denormalise(plain["image"])[:, :0:-1].astype(int)
        assert np.abs(denormalise(flipped["image"])[:, 1:] - mirrored).mean() < 2


def test_points_follow_the_image_through_every_augmentation(dataset: WholebodyDataset) -> None:
    """A point has in the crop the colour that it has in the image, as far as resampling allows."""
    from tcformer.data.images import read_image

    differences, shuffled = [], []
    for i in range(len(dataset)):
        sample = dataset.sample(i, np.random.default_rng([9, i]))
        name = dataset.crops.images[sample["image_id"]][0]
        image = read_image(dataset.folder / name)
        points = sample["points"]
        original = dataset.crops.keypoints[i, :, :2]
        if not np.allclose(dataset.crops.keypoints[i, :, 2] > 0, sample["weights"] > 0):
            original = original[FLIP]
        crop = denormalise(sample["image"])
        inside = (sample["weights"] > 0) & (points >= 2).all(1) & (points < [94, 126]).all(1)
        seen = crop[tuple(np.rint(points[inside]).astype(int).T[::-1])].astype(int)
        limit = np.array(image.shape[1::-1]) - 1
        there = image[tuple(np.clip(np.rint(original[inside]), 0, limit).astype(int).T[::-1])].astype(int)
        flipped = image[tuple(np.clip(np.rint(original[FLIP][inside]), 0, limit).astype(int).T[::-1])].astype(int)
        differences += np.minimum(np.abs(seen - there).mean(1), np.abs(seen - flipped).mean(1)).tolist()
        shuffled += np.abs(seen - np.roll(there, 7, 0)).mean(1).tolist()
    assert len(differences) > 500
    assert np.median(differences) < 0.5 * np.median(shuffled)


def test_augmentation_stays_in_its_ranges(dataset: WholebodyDataset) -> None:
    plain = dataset.sample(0, None)
    dataset.augmentation = WholebodyAugmentation(
        shift_probability=1,
        shift=0.16,
        flip_probability=0,
        half_body_probability=0,
        half_body_points=8,
        scale=0.5,
        rotation=40.0,
        rotation_probability=1,
    )
    rngs = [np.random.default_rng(i) for i in range(60)]
    extents, centres = [], []
    for rng in rngs:
        sample = dataset.sample(0, rng)
        extents.append(sample["extent"][0] / plain["extent"][0])
        centres.append((sample["centre"] - plain["centre"]) / plain["extent"])
    assert min(extents) >= 0.5 and max(extents) <= 1.5 and np.std(extents) > 0.2
    assert np.abs(centres).max() <= 0.1601 and np.abs(centres).max() > 0.12


def test_half_body_crops_to_one_half(dataset: WholebodyDataset) -> None:
    dataset.augmentation = WholebodyAugmentation(
        shift_probability=0,
        shift=0,
        flip_probability=0,
        half_body_probability=1,
        half_body_points=8,
        scale=0,
        rotation=0,
        rotation_probability=0,
    )
    plain = dataset.sample(0, None)
    upper = 0
    for i in range(40):
        sample = dataset.sample(0, np.random.default_rng(i))
        body = sample["points"][: PARTS["body"].stop]
        if sample["extent"][0] < 0.7 * plain["extent"][0]:
            upper += 1
            assert (body[:11] >= 0).all() and (body[:11] <= [96, 128]).all()
    assert 20 < upper < 36  # 69 %


def test_samples_of_detections_have_no_points(real: Path) -> None:
    people = load_people(annotation_file(real, "val"))
    crops = detected_crops(detection_file(real), people, least_score=0.5)
    data = WholebodyDataset(crops, image_folder(real, "val"), input_size=(64, 48), padding=1.25)
    batch = collate([data.sample(i, None) for i in range(2)])
    assert batch["weights"].sum() == 0 and batch["annotation_id"].tolist() == [0, 0]
    assert batch["image"].shape == (2, 3, 64, 48)
