"""LSP, LSP-Extended, MPII and COCO to one form, and what is wrong with files that are broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tcformer.body.joints import NUM_OPENPOSE, SPIN_NAMES
from tcformer.data.mesh.files import load_bodies
from tcformer.data.mesh.point_files import load_lsp
from tcformer.errors import UserError

RNG = np.random.default_rng(0)
NAMES = SPIN_NAMES[NUM_OPENPOSE:]


def images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


def coco(**changes: Any) -> dict[str, Any]:
    keypoints = np.concatenate([RNG.uniform(10, 50, (17, 2)), np.full((17, 1), 2)], 1)
    record = {"id": 7, "image_id": 3, "iscrowd": 0, "bbox": [10, 20, 40, 80], "keypoints": keypoints.ravel().tolist()}
    return {"images": [{"id": 3, "file_name": "a.jpg"}], "annotations": [{**record, **changes}]}


def mpii(**changes: Any) -> list[dict[str, Any]]:
    record = {"image": "b.jpg", "center": [100, 50], "scale": 2.0, "joints_vis": [1] * 16}
    return [{**record, "joints": RNG.uniform(1, 99, (16, 2)).tolist(), **changes}]


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_lsp_extended_counts_visible_points_alone(tmp_path: Path) -> None:
    joints = RNG.uniform(5, 90, (14, 3, 3))
    joints[:, 2] = 1
    joints[4:6, 2, 0] = 0
    joints[1:, 2, 2] = 0  # one point makes no box
    savemat(tmp_path / "joints.mat", {"joints": joints})
    images(tmp_path, "im00002.png", "im00001.png", "im00003.png")  # HR-LSPET: beside the file
    bodies = load_bodies(tmp_path / "joints.mat")
    assert bodies.image == ("im00001.png", "im00002.png")
    known = bodies.keypoints[:, NUM_OPENPOSE:, 2] > 0
    assert known[0].tolist() == [i < 14 and i not in (4, 5) for i in range(24)]
    np.testing.assert_allclose(bodies.keypoints[1, NUM_OPENPOSE : NUM_OPENPOSE + 14, :2], joints[:, :2, 1], rtol=1e-6)
    seen = joints[[i not in (4, 5) for i in range(14)], :2, 0]
    np.testing.assert_allclose(bodies.centre[0], (seen.min(0) + seen.max(0)) / 2)
    np.testing.assert_allclose(bodies.scale[0], 1.2 * (seen.max(0) - seen.min(0)).max() / 200)


def test_lsp_has_its_axes_the_other_way_round(tmp_path: Path) -> None:
    joints = RNG.uniform(5, 90, (3, 14, 2))
    joints[2] = 0  # visible; also where it is 1 the place is right
    savemat(tmp_path / "joints.mat", {"joints": joints})
    images(tmp_path / "images", "im0001.jpg", "im0002.jpg")
    bodies = load_bodies(tmp_path / "joints.mat")
    assert bodies.image == ("im0001.jpg", "im0002.jpg")
    np.testing.assert_allclose(bodies.keypoints[1, NUM_OPENPOSE : NUM_OPENPOSE + 14, :2], joints[:2, :, 1].T, rtol=1e-6)


def test_lsps_test_set_is_not_trained_on(tmp_path: Path) -> None:
    savemat(tmp_path / "joints.mat", {"joints": RNG.uniform(5, 90, (3, 14, 3))})
    images(tmp_path / "images", "im0999.jpg", "im1000.jpg", "im1001.jpg")
    assert load_bodies(tmp_path / "joints.mat").image == ("im0999.jpg", "im1000.jpg")
    assert load_lsp(tmp_path / "joints.mat", test=True).image == ("im1001.jpg",)


def test_mpii_boxes_are_those_of_stacked_hourglass(tmp_path: Path) -> None:
    content = mpii()
    bodies = load_bodies(write(tmp_path / "mpii.json", content + mpii(joints_vis=[1] * 15 + [0])))
    assert len(bodies) == 1 and bodies.image == ("b.jpg",)
    assert bodies.centre.tolist() == [[99, 79]] and bodies.scale.tolist() == [2.5]
    points = dict(zip(NAMES, bodies.keypoints[0, NUM_OPENPOSE:]))
    for name, row in {"right ankle": 0, "pelvis (MPII)": 6, "head top (LSP)": 9, "left wrist": 15}.items():
        np.testing.assert_allclose(points[name][:2], np.array(content[0]["joints"][row]) - 1, rtol=1e-6)


def test_coco_people_have_all_limbs(tmp_path: Path) -> None:
    content = coco()
    crowd, cut = coco(iscrowd=1, keypoints=[])["annotations"], coco()["annotations"]
    cut[0]["keypoints"][3 * 10 + 2] = 0
    content["annotations"] += crowd + cut
    bodies = load_bodies(write(tmp_path / "coco.json", content))
    assert len(bodies) == 1 and bodies.image == ("a.jpg",)
    assert bodies.centre.tolist() == [[30, 60]] and bodies.scale.tolist() == [1.2 * 80 / 200]
    points = dict(zip(NAMES, bodies.keypoints[0, NUM_OPENPOSE:]))
    flat = np.array(content["annotations"][0]["keypoints"]).reshape(17, 3)
    for name, row in {"nose": 0, "left shoulder": 5, "right wrist": 10, "left hip": 11, "right ankle": 16}.items():
        np.testing.assert_allclose(points[name][:2], flat[row, :2], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(keypoints=[1, 2]), r"annotation 7: field 'keypoints': expected finite numbers of shape \(51,\)"),
        (coco(bbox=[1, 2, float("nan"), 4]), "annotation 7: field 'bbox'"),
        (coco(bbox=[1, 2, 0, 0]), "image a.jpg: box: expected a scale above 0"),
        (coco(image_id=4), "annotation 7: field 'image_id': expected the id of an image of this file, found 4"),
        ({**coco(), "annotations": ["text"]}, r"annotation number 0 .*expected an object"),
        ({**coco(), "images": [{"id": 3}]}, r"image 0 .*expected an 'id' and a 'file_name'"),
        (mpii(joints=[[1, 2]]), r"record 0 .*field 'joints': expected finite numbers of shape \(16, 2\)"),
        (mpii(image=None), "record 0 .*field 'image': expected a string"),
        (mpii(image="../b.jpg"), "expected a path below the image folder"),
        (["text"], "record 0 .*expected an object"),
    ],
)
def test_bad_records_are_named(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_bodies(write(tmp_path / "set.json", content))
    assert "set.json" in str(caught.value)


def test_bad_matrices_are_named(tmp_path: Path) -> None:
    path = tmp_path / "joints.mat"
    with pytest.raises(UserError, match="no such file"):
        load_bodies(path)
    path.write_text("text")
    with pytest.raises(UserError, match=r"cannot be read as LSP's joints\.mat"):
        load_bodies(path)
    savemat(path, {"joints": np.zeros((13, 3, 2))})
    with pytest.raises(UserError, match=r"of shape \(13, 3, 2\)"):
        load_bodies(path)
    savemat(path, {"joints": np.zeros((14, 3, 2))})
    with pytest.raises(UserError, match=r"2 people, but .* contains 0 images"):
        load_bodies(path)
    images(tmp_path / "images", "a.jpg", "b.jpg")
    savemat(path, {"joints": np.full((14, 3, 2), np.nan)})
    with pytest.raises(UserError, match=r"column 0 .*a\.jpg: expected finite numbers"):
        load_bodies(path)
