"""Other people's data: what differs from the official files gives the right samples, or one error that names it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from tcformer.checks import read_json
from tcformer.data import ImageFolderDataset, load_bodies, load_people
from tcformer.data.imagenet.class_archives import index_file, read_index
from tcformer.data.imagenet.dataset import find_classes
from tcformer.data.images import BrokenImage, read_image, read_reduced
from tcformer.data.mesh.bodies import GENDERS, genders
from tcformer.data.mesh.dataset import MeshDataset
from tcformer.data.wholebody.dataset import WholebodyDataset, annotated_crops, detected_crops
from tcformer.errors import UserError
from tcformer.metrics import evaluate_wholebody, wholebody_oks
from tcformer.models import create_model
from tests.tcformer.data.test_broken_inputs import sequence
from tests.tcformer.data.test_class_archives import write_tar
from tests.tcformer.data.test_mesh_files import write_spin
from tests.tcformer.data.test_point_files import coco, images, write
from tests.tcformer.data.test_wholebody_data import content, person

# Images.


def crops_of(folder: Path, pixels: np.ndarray, **options: Any) -> WholebodyDataset:
    Image.fromarray(pixels).save(folder / "000000000007.jpg", **options)
    return WholebodyDataset(annotated_crops(load_people(content(person()))), folder, input_size=(64, 48), padding=1.25)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    upright = np.zeros((60, 80, 3), np.uint8)
    crops_of(tmp_path, upright).sample(0, None)
    tag = Image.Exif()
    tag[0x0112] = 6
    for pixels, hint in (
        (np.rot90(upright).copy(), "EXIF"),
        (upright[::2, ::2].copy(), "scaled"),
        (np.pad(upright, ((10, 10), (0, 0), (0, 0))), "padded"),
    ):
        with pytest.raises(
            UserError, match=rf"0007\.jpg: .* pixels: expected 80 x 60, as its annotation says; .*{hint}"
        ):
            crops_of(tmp_path, pixels, exif=tag).sample(0, np.random.default_rng(0))


def test_a_coco_image_of_another_size_is_refused_for_meshes(tmp_path: Path) -> None:
    made = coco()
    assert len(load_bodies(write(tmp_path / "set.json", made)).image_size) == 0, "not all files say it"
    made["images"][0] |= {"width": 80, "height": 60}
    images(tmp_path, "a.jpg")  # 8 x 8
    crops = MeshDataset(load_bodies(write(tmp_path / "set.json", made)), tmp_path, input_size=8)
    with pytest.raises(UserError, match=r"a\.jpg: 8 x 8 pixels: expected 80 x 60, as its annotation says"):
        crops.sample(0, None)
    Image.new("RGB", (80, 60)).save(tmp_path / "a.jpg")
    crops.sample(0, None)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10.0, 10.0, 30.0, 20.0], [10, 10, 29, 19]),
        ([-10.0, 10.0, 30.0, 20.0], [0, 10, 19, 19]),
        ([10.0, -10.0, 30.0, 20.0], [10, 0, 29, 9]),
        ([-10.0, -10.0, 200.0, 200.0], [0, 0, 79, 59]),
        ([70.0, 50.0, 30.0, 20.0], [70, 50, 9, 9]),
        ([-50.0, 10.0, 30.0, 20.0], None),
        ([10.0, -50.0, 30.0, 20.0], None),
        ([90.0, 10.0, 30.0, 20.0], None),
    ],
)
def test_boxes_are_cut_at_every_border(box: list[float], expected: list[int] | None) -> None:
    assert annotated_crops(load_people(content(person(bbox=box)))).box.tolist() == ([expected] if expected else [])


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp"])
def test_images_over_pillows_limit_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.full((60, 50), 200, np.uint8)).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(tmp_path / name).shape == (60, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setattr("tcformer.data.images.MOST_PIXELS", 2999)
    for read in (read_image, lambda path: read_reduced(path, ratio=4.0)):
        with pytest.raises(BrokenImage, match="50 x 60 pixels, more than 2999"):
            read(tmp_path / name)


def test_files_of_macos_are_no_images(tmp_path: Path) -> None:
    for name in ("n00000001", "n00000002"):
        images(tmp_path / "train" / name, "a.JPEG")
        (tmp_path / "train" / name / "._a.JPEG").write_bytes(b"\0\5\x16\7")
    for name in ("._n00000001", "__MACOSX", ".cache"):
        (tmp_path / "train" / name).mkdir()
    classes = find_classes(tmp_path, num_classes=2)
    assert len(ImageFolderDataset(tmp_path, "train", classes, size=8, crop_fraction=0.875)) == 2
    images(tmp_path / "lsp/images", "im0001.jpg", "im0002.jpg")
    (tmp_path / "lsp/images/._im0001.jpg").touch()
    savemat(tmp_path / "lsp/joints.mat", {"joints": np.random.default_rng(0).uniform(5, 90, (3, 14, 2))})
    assert load_bodies(tmp_path / "lsp/joints.mat").image == ("im0001.jpg", "im0002.jpg")
    folder = tmp_path / "3dpw"
    folder.mkdir()
    sequence(folder, lambda made: None)
    (folder / "._walk.pkl").write_bytes(b"\0\5\x16\7")
    assert len(load_bodies(folder)) == 6


def test_a_network_of_one_image_size_names_it() -> None:
    model = create_model("timm/mixer_s32_224", "imagenet", num_classes=3).eval()
    with pytest.raises(UserError, match=r"timm/mixer_s32_224 does not accept images of 256 x 192 .*expected 224 x 224"):
        model(torch.zeros(1, 3, 256, 192))
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 3)


# Genders.


@pytest.mark.parametrize(("text", "gender"), [
    ("m", "male"), ("M", "male"), ("Male", "male"), (b"m", "male"), (b"FEMALE", "female"), (" f ", "female"),
    ("neutral", "neutral"), ("N", "neutral"), ("", "neutral"), (np.str_("male"), "male"), (np.bytes_("f"), "female"),
])  # fmt: skip
def test_spellings_of_genders(text: object, gender: Any, tmp_path: Path) -> None:
    assert genders([text], 1).tolist() == [GENDERS.index(gender)]
    sequence(tmp_path, lambda made: made.update(genders=[text]))
    assert set(load_bodies(tmp_path).gender) == {GENDERS.index(gender)}


@pytest.mark.parametrize("text", ["x", "man", "1", 1, None, ["m"]])
def test_other_genders_are_named(text: object, tmp_path: Path) -> None:
    sequence(tmp_path, lambda made: made.update(genders=[text]))
    with pytest.raises(
        UserError, match=r"walk\.pkl: field 'genders\[0\]': expected a gender, one of neutral, male, female"
    ):
        load_bodies(tmp_path)
    if isinstance(text, str):
        with pytest.raises(UserError, match=r"set\.npz: row 2 .*field 'gender': expected a gender"):
            load_bodies(write_spin(tmp_path, gender=np.array(["m", "f", text, "m", "m"])))


# Results and annotations.

TRUTH = content(person(1), person(2, bbox=[1.0, 1.0, 20.0, 20.0]))


def record(**changes: Any) -> dict[str, Any]:
    points = {field: values for field, values in person().items() if field.endswith(("kpts", "keypoints"))}
    points.pop("num_keypoints")
    return {"image_id": 7, "category_id": 1, "annotation_id": 1, "score": 0.5, **points, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 2}, "field 'category_id': expected 1"),
        ({"category_id": "1"}, "field 'category_id': expected 1"),
        ({"image_id": 8}, "image_id 8 is not among"),
        ({"image_id": "7"}, "image_id '7' is not among"),
        ({"image_id": 7.0}, r"image_id 7\.0 is not among"),
        ({"image_id": None}, "image_id None is not among"),
        ({"image_id": [7]}, r"image_id \[7\] is not among"),
        ({"score": None}, "field 'score': expected finite numbers, found None"),
        ({"score": True}, "field 'score'"),
        ({"face_score": "high"}, "field 'face_score'"),
        ({"keypoints": None}, "field 'keypoints': expected 51 numbers .* found None"),
        ({"keypoints": "1" * 51}, "field 'keypoints'"),
        ({"keypoints": [[1, 2, 3]] * 51}, "field 'keypoints'"),
        ({"keypoints": [None] * 51}, "field 'keypoints'"),
        ({"keypoints": [1e400] * 51}, "expected finite numbers"),
    ],
)
def test_odd_results_are_named(change: dict[str, Any], message: str) -> None:
    for measure in (evaluate_wholebody, wholebody_oks):
        measure(TRUTH, [record()])
        with pytest.raises(UserError, match=f"record 1 .*{message}|{message}"):
            measure(TRUTH, [record(), record(annotation_id=2, **change)])
        for wrong in (1, {}, "text", None, [record()]):
            with pytest.raises(UserError, match="results: "):
                measure(TRUTH, [wrong])  # type: ignore[list-item]


@pytest.mark.parametrize("number", [1, 3, -1, "1", 1.0, [1], None, True])
def test_annotation_ids_are_those_of_annotated_people(number: object) -> None:
    with pytest.raises(UserError, match=r"record 1 .*field 'annotation_id': expected the id of an annotated person"):
        wholebody_oks(TRUTH, [record(), record(annotation_id=number)])


@pytest.mark.parametrize("number", ["3", 3.5, -1, None, [3], {}, True, 2**70])
def test_odd_ids_of_coco_are_named(number: object, tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    made = coco()
    made["images"].append({"id": number, "file_name": "b.jpg"})
    with pytest.raises(UserError, match=r"set\.json: image 1 \(counted from 0\): field 'id': expected an integer"):
        load_bodies(write(path, made))
    with pytest.raises(UserError, match=r"set\.json: annotation 7: field 'image_id': expected the id of an image"):
        load_bodies(write(path, coco(image_id=number)))
    path.write_text(json.dumps([{"image_id": number, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1.0}]))
    with pytest.raises(UserError, match=r"detection 0 .*field 'image_id': expected an integer"):
        detected_crops(path, load_people(TRUTH), least_score=0.0)


def test_duplicate_ids_of_coco_are_named(tmp_path: Path) -> None:
    made = coco()
    made["images"] *= 2
    with pytest.raises(UserError, match=r"image 1 .*that no other image has, found 3"):
        load_bodies(write(tmp_path / "set.json", made))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([1, 3, 7])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(value=JSON, data=st.data())
def test_any_value_in_any_field_is_read_or_named(
    value: object, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    field = data.draw(st.sampled_from([*record(), "face_score", "wholebody_score"]))
    with contextlib.suppress(UserError):
        evaluate_wholebody(TRUTH, [record(**{field: value})])
    with contextlib.suppress(UserError):
        wholebody_oks(TRUTH, [record(**{field: value})])
    field = data.draw(st.sampled_from(list(person())))
    with contextlib.suppress(UserError):
        annotated_crops(load_people(content(person(**{field: value}))))
    made = coco()
    target = data.draw(st.sampled_from([made, made["images"][0], made["annotations"][0]]))
    target[data.draw(st.sampled_from(sorted(target)))] = value
    with contextlib.suppress(UserError):
        load_bodies(write(path, made))
    with contextlib.suppress(UserError):
        load_bodies(write(path, value))
    with contextlib.suppress(UserError):
        detected_crops(write(path, value), load_people(TRUTH), least_score=0.0)


# Files.


def test_json_with_a_mark_is_read_and_deep_json_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, "") == [1]
    for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\ufffe", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON"):
            read_json(path, "")


@settings(max_examples=150, derandomize=True, deadline=None)
@given(value=JSON, data=st.data())
def test_any_index_is_used_or_ignored(
    value: object, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    archive = tmp_path_factory.getbasetemp() / "n00000001.tar"
    if not archive.exists():
        write_tar(archive, {"a.JPEG": b"123", "b.JPEG": b"4567"})
    index_file(archive).unlink(missing_ok=True)
    members = read_index(archive)
    index = {"size": archive.stat().st_size, "members": [list(member) for member in members]}
    place = data.draw(st.sampled_from(["all", "size", "members", "member", "name", "offset", "length"]))
    if place in index:
        index[place] = value  # type: ignore[assignment]
    elif place == "member":
        index["members"][1] = value  # type: ignore[index]
    elif place != "all":
        index["members"][1][["name", "offset", "length"].index(place)] = value  # type: ignore[index]
    index_file(archive).write_text(json.dumps(value if place == "all" else index))
    read = read_index(archive)
    assert read == members or all(m.offset + m.size <= archive.stat().st_size and isinstance(m.name, str) for m in read)
    index_file(archive).write_text("[" * 100_000)
    assert read_index(archive) == members
