import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcformer.data import collate
from tcformer.data.face.dataset import (
    FaceAugmentation,
    FaceDataset,
    face_crops,
    face_image_folder,
    list_file,
    load_faces,
)
from tcformer.data.face.landmarks import FLIP
from tcformer.data.images import denormalise, read_image
from tcformer.errors import UserError
from tcformer.metrics.face import evaluate_face, face_nme

PAPER = FaceAugmentation(scale=0.25, rotation=30.0, rotation_probability=0.6, flip_probability=0.5)


def face_line(name: str = "0--Parade/a.jpg", seed: int = 0, **changes: str) -> str:
    """A good line with some fields (by number, "f1" the first) changed."""
    points = np.random.default_rng(seed).uniform(10, 60, 196)
    fields = [f"{v:.6f}" for v in points] + ["12", "8", "55", "61"] + ["0", "1", "0", "0", "1", "0"] + [name]
    for field, value in changes.items():
        fields[int(field[1:]) - 1] = value
    return " ".join(fields)


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "faces.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_fields_of_a_line(tmp_path: Path) -> None:
    faces = load_faces(written(tmp_path, face_line(), "", face_line("b.jpg", f1="-3.5", f206="1")))
    assert faces.names == ("0--Parade/a.jpg", "b.jpg") and len(faces) == 2
    assert faces.points.shape == (2, 98, 2) and faces.points[1, 0, 0] == -3.5
    assert faces.points[0].ravel() == pytest.approx([float(v) for v in face_line().split()[:196]])
    assert faces.box[0].tolist() == [12, 8, 55, 61]
    assert faces.attributes.tolist() == [
        [False, True, False, False, True, False],
        [False, True, False, False, True, True],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (face_line() + " x", r"line 2: expected 207 fields .* found 208"),
        (face_line().rsplit(" ", 2)[0], r"line 2: expected 207 fields .* found 205"),
        ("{", r"line 2: expected 207 fields .* found 1"),
        (face_line(f3="nan"), r"line 2: field 3 \(x of point 1\): expected a finite number of pixels, found nan"),
        (face_line(f196="inf"), r"line 2: field 196 \(y of point 97\): expected a finite number .* found inf"),
        (face_line(f8="a.jpg"), r"line 2: field 8 \(y of point 3\): .* found a.jpg"),
        (face_line(f199="1e999"), r"line 2: field 199 \(box x_max\): expected a finite number"),
        (face_line(f201="2"), r"line 2: field 201 \(flag pose\): expected 0 or 1, found 2"),
        (face_line(f204="nan"), r"line 2: field 204 \(flag make-up\): expected 0 or 1, found nan"),
        (face_line(f206="0.0"), r"line 2: field 206 \(flag blur\): expected 0 or 1, found 0.0"),
        (
            face_line(f121="5", f122="6", f145="5", f146="6"),
            r"line 2: fields 121 and 145 \(outer eye corners, points 60 and 72\): expected two places, found both",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"faces\.txt: {message}.*; correct the line or download the file again"):
        load_faces(written(tmp_path, face_line(), line, face_line()))


def test_the_first_ten_bad_lines_are_named_and_all_counted(tmp_path: Path) -> None:
    bad = [face_line(f201=str(n)) for n in range(2, 16)]
    with pytest.raises(UserError) as caught:
        load_faces(written(tmp_path, *bad))
    message = str(caught.value)
    assert "line 1: field 201" in message and "line 10: field 201" in message and "line 11" not in message
    assert "the first 10 of 14" in message


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt: no such file; expected the official WFLW layout"):
        load_faces(tmp_path / "gone.txt")
    path = tmp_path / "faces.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"faces\.txt: cannot be read as text"):
        load_faces(path)


def test_an_empty_list_gives_nobody(tmp_path: Path) -> None:
    faces = load_faces(written(tmp_path))
    assert len(faces) == 0 and faces.points.shape == (0, 98, 2) and faces.attributes.shape == (0, 6)
    assert len(FaceDataset(faces, tmp_path, input_size=(64, 64), padding=1.25)) == 0


def test_missing_images_are_listed(tmp_path: Path) -> None:
    names = [f"0--Parade/{i}.jpg" for i in range(14)] + ["0--Parade/3.jpg"]
    faces = load_faces(written(tmp_path, *(face_line(name) for name in names)))
    (tmp_path / "0--Parade").mkdir()
    (tmp_path / "0--Parade/0.jpg").touch()
    with pytest.raises(
        UserError, match=r"13 of 14 images that .*faces\.txt names .*: 0--Parade/1\.jpg \(face 2\).*\.\.\."
    ):
        FaceDataset(faces, tmp_path, input_size=(64, 64), padding=1.25)
    with pytest.raises(UserError, match="14 of 14"):
        FaceDataset(faces, tmp_path / "nowhere", input_size=(64, 64), padding=1.25)


def test_real_crops_are_those_of_hrnet_and_mmpose(samples: Path) -> None:
    faces = load_faces(list_file(samples / "wflw", "test"))
    content = json.loads((samples / "wflw/mmpose_annotations/face_landmarks_wflw_test.json").read_text())
    boxes = face_crops(faces.points)
    wanted = {tuple(np.round(np.reshape(a["keypoints"], (98, 3))[0, :2], 3)): a for a in content["annotations"]}
    assert len(faces) == len(wanted) == 4
    for points, box in zip(faces.points, boxes):
        annotation: dict[str, Any] = wanted[tuple(np.round(points[0], 3))]
        assert (box[:2] + box[2:] / 2).tolist() == annotation["center"]
        assert box[2:].max() / 200 == pytest.approx(annotation["scale"])
    data = FaceDataset(faces, face_image_folder(samples / "wflw"), input_size=(256, 256), padding=1.25)
    assert data.extent == pytest.approx(1.25 * np.repeat(boxes[:, 2:].max(1, keepdims=True), 2, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> FaceDataset:
    """Three faces in pictures whose colour says where one is: red grows with x, green with y."""
    y, x = np.mgrid[0:80, 0:100]
    image = np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8)
    lines = []
    for i in range(3):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        lines.append(face_line(f"{i}.png", seed=i))
    return FaceDataset(
        load_faces(written(tmp_path, *lines)), tmp_path, input_size=(64, 64), padding=1.25, augmentation=PAPER
    )


def test_a_plain_sample_holds_the_face_in_its_middle(dataset: FaceDataset) -> None:
    for i in range(3):
        sample = dataset.sample(i, None)
        assert sample["image"].shape == (3, 64, 64) and sample["image"].dtype == np.float32
        points = sample["points"]
        assert points.dtype == np.float32 and sample["weights"].tolist() == [1.0] * 98
        middle = (points.min(0) + points.max(0)) / 2
        assert np.abs(middle - 32).max() < 1.5
        assert np.ptp(points, axis=0).max() == pytest.approx(64 / 1.25, abs=2.5)
    batch = collate([dataset.sample(i, None) for i in range(3)])
    assert batch["points"].shape == (3, 98, 2) and batch["index"].tolist() == [0, 1, 2]


def test_points_follow_the_image_through_every_augmentation(dataset: FaceDataset) -> None:
    """Red and green at a point say which place of the image it is, as long as it has not left it."""
    flipped, sizes = 0, []
    for seed in range(40):
        sample = dataset.sample(1, np.random.default_rng(seed))
        crop = denormalise(sample["image"])
        flip = bool(np.sign(crop[32, 40, 0].astype(int) - crop[32, 24, 0]) < 0)
        flipped += flip
        original = dataset.faces.points[1][FLIP] if flip else dataset.faces.points[1]
        points = sample["points"]
        inside = (points >= 1).all(1) & (points <= 62).all(1)
        assert inside.sum() > 20
        at = np.rint(points[inside]).astype(int)
        seen = crop[at[:, 1], at[:, 0], :2].astype(float)
        step = 2 * sample["extent"][0] / 64  # colour a pixel of the crop
        assert np.abs(seen - 2 * original[inside]).max() < step + 4
        sizes.append(sample["extent"][0] / dataset.extent[1, 0])
    assert 10 < flipped < 30
    assert 0.75 <= min(sizes) < 0.85 and 1.15 < max(sizes) <= 1.25


def test_a_flipped_sample_is_the_mirror_image(dataset: FaceDataset) -> None:
    dataset.augmentation = FaceAugmentation(scale=0.0, rotation=0.0, rotation_probability=0.0, flip_probability=1.0)
    plain, flipped = dataset.sample(0, None), dataset.sample(0, np.random.default_rng(0))
    expected = np.stack([64 - plain["points"][:, 0], plain["points"][:, 1]], -1)[FLIP]
    assert flipped["points"] == pytest.approx(expected, abs=1e-3)
    mirrored = denormalise(plain["image"])[:, :0:-1].astype(int)
    assert np.abs(denormalise(flipped["image"])[:, 1:] - mirrored).mean() < 2


def test_rotation_stays_in_its_range(dataset: FaceDataset) -> None:
    dataset.augmentation = FaceAugmentation(scale=0.0, rotation=30.0, rotation_probability=0.6, flip_probability=0.0)
    plain = dataset.sample(0, None)["points"]
    angles = []
    for seed in range(60):
        points = dataset.sample(0, np.random.default_rng(seed))["points"]
        a, b = plain[60] - plain[72], points[60] - points[72]
        turn = np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b)
        angles.append(np.rad2deg(turn))
    still = np.abs(angles) < 1e-3
    assert 14 < still.sum() < 34  # 40 %
    assert np.abs(angles).max() <= 30.01 and np.abs(angles).max() > 25


def test_a_sample_depends_on_its_generator_alone(dataset: FaceDataset) -> None:
    first, second = (dataset.sample(2, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(first["image"], dataset.sample(2, np.random.default_rng(6))["image"])
    dataset.augmentation = None
    plain, same = dataset.sample(2, None), dataset.sample(2, np.random.default_rng(5))
    assert all(np.array_equal(plain[key], same[key]) for key in plain)


def test_real_faces_are_cropped(samples: Path) -> None:
    faces = load_faces(list_file(samples / "wflw", "test"))
    data = FaceDataset(
        faces, face_image_folder(samples / "wflw"), input_size=(256, 256), padding=1.25, augmentation=PAPER
    )
    assert len(data) == 4 and len(set(faces.names)) == 2
    for i in range(4):
        sample = data.sample(i, None)
        assert ((sample["points"] > 20) & (sample["points"] < 236)).all()
        # The pixel at the crop's middle is the image's pixel at the crop's centre.
        image = read_image(data.folder / faces.names[i])
        x, y = np.rint(data.centre[i]).astype(int)
        around = image[y - 1 : y + 2, x - 1 : x + 2].astype(int)
        middle = denormalise(sample["image"])[128, 128]
        assert (middle >= around.min((0, 1)) - 3).all() and (middle <= around.max((0, 1)) + 3).all()


def test_the_official_line_is_read(samples: Path) -> None:
    path = list_file(samples / "wflw", "test").with_name("list_98pt_rect_attr_test.line1_official.txt")
    faces = load_faces(path)
    assert len(faces) == 1
    assert faces.box[0].tolist() == [198, 242, 331, 385]
    low, high = faces.points[0].min(0), faces.points[0].max(0)
    assert [*low, *high] == pytest.approx([182.2, 263.2, 338.2, 387.0], abs=0.1)


@pytest.mark.parametrize("subset", ["", "_blur", "_expression", "_illumination", "_largepose", "_makeup", "_occlusion"])
def test_the_official_lists_of_the_test_subsets_are_read(subset: str, tmp_path: Path) -> None:
    """Those in list_98pt_test have neither box nor flags: 196 coordinates and the name."""
    full = face_line().split()
    path = tmp_path / f"list_98pt_test{subset}.txt"
    path.write_text(" ".join([*full[:196], full[-1]]) + "\n")
    short, long = load_faces(path), load_faces(written(tmp_path, face_line()))
    assert (short.points == long.points).all() and short.names == long.names
    assert not short.attributes.any()
    assert short.box[0].tolist() == [*short.points[0].min(0), *short.points[0].max(0)]
    measures = evaluate_face(face_nme(short.points, short.points), short.attributes)
    assert measures["full"]["NME"] == 0 and measures["blur"]["count"] == 0
