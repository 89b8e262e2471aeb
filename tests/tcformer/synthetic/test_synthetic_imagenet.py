"""The generated classification set against ImageNet's folder layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2

from tcformer.synthetic import GenerateImagenet, generate_imagenet
from tcformer.synthetic.imagenet import CLASSES, wnid


def test_folders(imagenet: Path) -> None:
    names = [wnid(index) for index in range(len(CLASSES))]
    assert len(names) >= 10 and names == sorted(names)
    for split, count in (("train", 2), ("val", 1)):
        assert sorted(folder.name for folder in (imagenet / split).iterdir()) == names
        for name in names:
            images = sorted((imagenet / split / name).iterdir())
            assert len(images) == count
            for image in images:
                assert image.suffix == ".JPEG"
                assert cv2.imread(str(image)).shape == (64, 64, 3)
    validation = [image.name for image in (imagenet / "val").rglob("*.JPEG")]
    assert len(set(validation)) == len(validation)


def test_class_index(imagenet: Path) -> None:
    index = json.loads((imagenet / "classes.json").read_text())
    assert list(index) == [str(i) for i in range(len(CLASSES))]
    assert [entry[0] for entry in index.values()] == sorted(entry[0] for entry in index.values())
    assert len({entry[1] for entry in index.values()}) == len(CLASSES)


def test_same_bytes_in_any_order(
    imagenet: Path, imagenet_options: Callable[..., GenerateImagenet], tmp_path: Path
) -> None:
    generate_imagenet(tmp_path, imagenet_options(), map=lambda f, items: [f(item) for item in reversed(list(items))])
    for path in imagenet.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(imagenet)).read_bytes() == path.read_bytes()
