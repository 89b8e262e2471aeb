"""Odd images give the right pixels; what is wrong in an annotation file is told in one sentence; what is only odd in
the official files is read."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcformer.data import BrokenImage, ImageError, ImageFolderDataset, load_bodies, load_faces, load_people
from tcformer.data.images import decode_image, missing_files, read_image
from tcformer.data.mesh.dataset import MeshDataset
from tcformer.data.wholebody.dataset import annotated_crops, annotation_file
from tcformer.errors import UserError
from tests.tcformer.data.test_face_data import face_line
from tests.tcformer.data.test_mesh_files import eft, write_eft, write_spin
from tests.tcformer.data.test_wholebody_data import content, person


@pytest.fixture
def ramp() -> np.ndarray:
    """(24, 32) uint8, every value its own brightness."""
    return (np.add.outer(np.arange(24) * 32, np.arange(32)) // 3).astype(np.uint8)


@pytest.fixture
def pixels(ramp: np.ndarray) -> np.ndarray:
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_of_16_bits_keeps_its_upper_8(ramp: np.ndarray, kind: str) -> None:
    deep = ramp.astype(np.uint16) * 256 + 200
    image = decode_image(encoded(Image.fromarray(deep), kind), "deep")
    assert (image == ramp[:, :, None]).all() and image.shape == (24, 32, 3) and image.dtype == np.uint8


def test_colour_of_16_bits_keeps_its_upper_8(pixels: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    data = cv2.imencode(".png", pixels[:, :, ::-1].astype(np.uint16) * 256 + 200)[1].tobytes()
    assert (decode_image(data, "deep") == pixels).all()


def test_alpha_is_dropped_and_never_mixed_in(pixels: np.ndarray, ramp: np.ndarray) -> None:
    half = Image.fromarray(np.concatenate([pixels, ramp[:, :, None] // 2], 2))
    assert (decode_image(encoded(half, "PNG"), "half") == pixels).all()
    gray = Image.merge("LA", [Image.fromarray(ramp), Image.fromarray(ramp[::-1])])
    assert (decode_image(encoded(gray, "PNG"), "gray") == ramp[:, :, None]).all()


def test_palettes_give_their_colours(ramp: np.ndarray) -> None:
    image = Image.fromarray(ramp % 4).convert("P")
    colours = np.array([[255, 0, 0], [1, 2, 3], [0, 255, 7], [250, 251, 252]], np.uint8)
    image.putpalette(colours.ravel().tolist())
    for options in ({}, {"transparency": 1}):
        assert (decode_image(encoded(image, "PNG", **options), "palette") == colours[ramp % 4]).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode_image(data, "animation") == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_no_orientation_is_applied(pixels: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode_image(encoded(Image.fromarray(pixels), "JPEG", quality=95), "plain")
    assert (decode_image(encoded(Image.fromarray(pixels), "JPEG", quality=95, exif=exif), "turned") == plain).all()
    png = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    assert (decode_image(png, "turned") == pixels).all()


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": "4:4:4"}, {"optimize": True, "quality": 30}]
)
def test_jpegs_of_every_make_agree_with_pillow(pixels: np.ndarray, options: dict[str, Any]) -> None:
    data = encoded(Image.fromarray(pixels), "JPEG", **options)
    assert (decode_image(data, "a") == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_white_are_refused(ramp: np.ndarray, mode: str) -> None:
    with pytest.raises(
        BrokenImage, match=f"odd: cannot be decoded .pixels of the mode {mode}.; expected a complete JPEG"
    ):
        decode_image(encoded(Image.fromarray(ramp).convert(mode), "TIFF"), "odd")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_any_damage_is_an_image_or_one_error(pixels: np.ndarray, kind: str) -> None:
    whole = encoded(Image.fromarray(pixels), kind)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        if rng.random() < 0.5:
            data = data[: rng.integers(len(data))]
        else:
            for place in rng.integers(len(data), size=rng.integers(1, 8)):
                data[place] = rng.integers(256)
        try:
            assert decode_image(bytes(data), "damaged").dtype == np.uint8
        except BrokenImage as error:
            refused += 1
            assert error.path == "damaged"
    assert refused > 50


def test_a_broken_file_is_reported_from_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "zeros.jpg").write_bytes(bytes(100))
    with pytest.raises(BrokenImage) as broken:
        read_image(tmp_path / "zeros.jpg")
    assert broken.value.path == str(tmp_path / "zeros.jpg")
    copied = pickle.loads(pickle.dumps(broken.value))
    assert (str(copied), copied.path) == (str(broken.value), broken.value.path)
    with pytest.raises(ImageError) as away:
        read_image(tmp_path / "away.jpg")
    assert not isinstance(away.value, BrokenImage)


def test_missing_files_of_several_folders(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/b/2.jpg", "3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = ["a/1.jpg", "z.jpg", "a/b/2.jpg", "3.jpg", "c/1.jpg", "a/2.jpg", "z.jpg"]
    assert missing_files(tmp_path, names) == ["a/2.jpg", "c/1.jpg", "z.jpg"]
    assert missing_files(tmp_path / "nowhere", ["1.jpg"]) == ["1.jpg"]


def test_classes_without_an_image_are_reported(tmp_path: Path, pixels: np.ndarray) -> None:
    classes = [f"n{i:08d}" for i in range(14)]
    for name in classes[:-1]:  # the last class has no folder in this split
        (tmp_path / "train" / name).mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "train" / classes[3] / "a.JPEG")
    with pytest.raises(UserError, match=r"train: 12 of 14 classes contain no image: n00000000, .*, n00000010, \.\.\.;"):
        ImageFolderDataset(tmp_path, "train", classes, size=8, crop_fraction=0.875)
    for name in classes[:-1]:
        Image.fromarray(pixels).save(tmp_path / "train" / name / "a.JPEG")
    assert len(ImageFolderDataset(tmp_path, "train", classes, size=8, crop_fraction=0.875)) == 13


# Whole-body annotations. What is wrong in them: test_wholebody_data.py.


def test_odd_but_official_records_are_read() -> None:
    nothing = {field: [0] * (3 * count) for field, count in (("foot_kpts", 6), ("face_kpts", 68))}
    hands = {field: [0.0] * 63 for field in ("lefthand_kpts", "righthand_kpts")}
    nobody = {"keypoints": [0] * 51, **nothing, **hands}
    crowd = {"counts": [1, 2, 3], "size": [60, 80]}
    people = load_people(
        content(
            person(1, iscrowd=1, segmentation=crowd, bbox=[0, 0, 79, 59], **nobody),
            person(2, bbox=[5.0, 5.0, 0.0, 3.0], area=0.0, **nobody),  # no extent, no point
            person(3, bbox=[5.5, 5.5, 0.4, 0.3], area=0.05),
            person(4, bbox=[-3.2, -1.0, 20.0, 30.0], keypoints=[-2.0, 500.0, 1] * 17),  # points outside
            person(5, bbox=[10.0, 10.0, 20.0, 20.0], **nothing, **hands),
        )
    )
    assert people.annotation_id.tolist() == [1, 2, 3, 4, 5] and people.crowd.tolist() == [True] + [False] * 4
    # As in mmpose, a box smaller than a pixel is no sample.
    assert annotated_crops(people).annotation_id.tolist() == [4, 5]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"bbox": None}, "bbox"),
        ({"bbox": [10**400, 0, 1, 1]}, "bbox"),
        ({"bbox": [True, 1, 2, 3]}, "bbox"),
        ({"area": float("nan")}, "area"),
        ({"id": True}, "id"),
        ({"id": "7"}, "id"),
        ({"id": 10**400}, "id"),
        ({"image_id": None}, "image_id"),
        ({"face_kpts": [10**400] * 204}, "face_kpts"),
        ({"keypoints": []}, "keypoints"),
        ({"righthand_kpts": "none"}, "righthand_kpts"),
    ],
)
def test_further_bad_annotations_are_named(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content(person(3), {**person(4), **change})))
    with pytest.raises(UserError, match=rf"people\.json: annotation .*: field '{field}': expected .*; correct the"):
        load_people(path)


def test_one_damaged_value_in_the_official_file_is_named(samples: Path) -> None:
    official = json.loads(annotation_file(samples / "coco_wholebody", "val").read_text())
    load_people(official)
    for field in ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts", "bbox"):
        damaged = deepcopy(official)
        damaged["annotations"][11][field][2] = float("nan")
        number = damaged["annotations"][11]["id"]
        with pytest.raises(UserError, match=rf"annotation {number}: field '{field}': expected .*finite"):
            load_people(damaged)


# Face lists. The other faults of a line: test_face_data.py.


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg"])
def test_an_image_outside_the_folder_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "faces.txt"
    path.write_text(f"{face_line()}\n{face_line(name)}\n")
    with pytest.raises(UserError, match=r"faces\.txt: line 2: field 207 \(image name\): expected a path below"):
        load_faces(path)


def test_the_detectors_box_is_read_as_it_is(tmp_path: Path) -> None:
    """Nothing is cropped by it."""
    path = tmp_path / "faces.txt"
    path.write_text(face_line(f197="50", f199="50") + "\n")
    assert load_faces(path).box[0].tolist() == [50, 8, 50, 61]


# Mesh files. Their other faults: test_mesh_files.py.


def test_texts_as_bytes_are_read(tmp_path: Path) -> None:
    names = np.array([f"images/{i}.jpg" for i in range(5)])
    plain = load_bodies(write_spin(tmp_path, imgname=names))
    old = load_bodies(write_spin(tmp_path, imgname=names.astype("S"), gender=np.array(list("mfmnf"), "S")))
    assert old.image == plain.image and old.gender.tolist() == plain.gender.tolist()


@pytest.mark.parametrize("gender", [np.array(["m"] * 4), np.array("m"), np.arange(5)])
def test_genders_of_another_number_are_named(gender: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set\.npz: field 'gender': expected a string for each of 5 rows"):
        load_bodies(write_spin(tmp_path, gender=gender))


def test_a_file_of_nobody_is_reported(tmp_path: Path) -> None:
    empty = {"imgname": np.array([], "U9"), "center": np.zeros((0, 2)), "scale": np.zeros(0), "gender": None}
    fields = {"part": (24, 3), "openpose": (25, 3), "S": (24, 4), "pose": (72,), "shape": (10,), "has_smpl": ()}
    empty |= {name: np.zeros((0, *shape)) for name, shape in fields.items()}
    for bodies in (load_bodies(write_spin(tmp_path, **empty)), load_bodies(write_eft(tmp_path))):
        assert len(bodies) == 0
        with pytest.raises(UserError, match="nobody to crop in its annotations"):
            MeshDataset(bodies, tmp_path, input_size=64)


def test_eft_entries_of_one_person_may_repeat(tmp_path: Path) -> None:
    assert len(load_bodies(write_eft(tmp_path, eft(), eft(), eft(annotId=None, subjectId=3)))) == 3


def sequence(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    frames = 6
    points = np.zeros((frames, 3, 18))
    points[:, :2, :4], points[:, 2, :4] = [[0, 9, 0, 9], [0, 0, 9, 9]], 0.9
    made: dict[str, Any] = {
        "sequence": "walk",
        "betas": [np.zeros(10)],
        "poses": [np.full((frames, 72), 0.1)],
        "genders": ["m"],
        "poses2d": [points],
        "cam_poses": np.tile(np.eye(4), (frames, 1, 1)),
        "campose_valid": [np.ones(frames)],
    }
    change(made)
    (folder / "walk.pkl").write_bytes(pickle.dumps(made, protocol=2))
    return folder


@pytest.mark.parametrize("field", ["poses[0]", "poses2d[0]", "cam_poses"])
def test_only_frames_that_count_must_be_finite(field: str, tmp_path: Path) -> None:
    key = field.removesuffix("[0]")

    def damage(made: dict[str, Any]) -> None:
        values = made[key][0] if field.endswith("]") else made[key]
        values[3, 0] = np.nan

    def damage_and_skip(made: dict[str, Any]) -> None:
        damage(made)
        made["campose_valid"][0][3] = 0

    skipped = load_bodies(sequence(tmp_path, damage_and_skip))
    assert [name[-9:-4] for name in skipped.image] == ["00000", "00001", "00002", "00004", "00005"]
    with pytest.raises(UserError) as caught:
        load_bodies(sequence(tmp_path, damage))
    assert f"walk.pkl: frame 3 (counted from 0): field '{field}': expected finite numbers" in str(caught.value)


def test_coefficients_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"walk\.pkl: field 'betas\[0\]': expected finite numbers .* found NaN, infinity .*; correct it"
    ):
        load_bodies(sequence(tmp_path, lambda made: made["betas"][0].fill(np.inf)))
