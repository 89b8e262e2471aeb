"""The generated faces against WFLW's format."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tcformer.synthetic import GenerateFace, generate_face

Options = Callable[..., GenerateFace]

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"


def lines(root: Path, split: str) -> list[list[str]]:
    return [line.split(" ") for line in (root / LISTS / f"list_98pt_rect_attr_{split}.txt").read_text().splitlines()]


def points_of(line: list[str]) -> np.ndarray:
    return np.array(line[:196], float).reshape(98, 2)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_bytes_in_any_order(faces: Path, face_options: Options, tmp_path: Path) -> None:
    generate_face(tmp_path, face_options(), map=lambda f, items: [f(item) for item in reversed(list(items))])
    assert files(tmp_path) == files(faces)


def test_a_face_depends_on_seed_split_and_index_alone(faces: Path, face_options: Options, tmp_path: Path) -> None:
    generate_face(tmp_path / "fewer", face_options(train_images=1, test_images=1))
    for split in ("train", "test"):
        assert lines(tmp_path / "fewer", split) == lines(faces, split)[:1]
    fewer, more = files(tmp_path / "fewer"), files(faces)
    images = [name for name in fewer if name.endswith(".jpg")]
    assert len(images) == 2 and all(fewer[name] == more[name] for name in images)
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
            image = cv2.imread(str(faces / "WFLW_images" / line[206]))
            assert image.shape == (112, 128, 3)
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
