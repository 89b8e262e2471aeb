"""Classes of any program, measured against class folders and lists."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.prediction.score_classes import score_classes
from stages.cli import cli
from tcformer.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of two classes, one of them in a tar; training has a third class."""
    root = tmp_path / "imagenet/val"
    for name in ("train/n1", "train/n2", "train/n3", "val/n1"):
        (tmp_path / "imagenet" / name).mkdir(parents=True)
    for name in ("a.JPEG", "b.JPEG"):
        (root / "n1" / name).touch()
    with tarfile.open(root / "n3.tar", "w") as tar:
        for name in ("a.JPEG", "c.JPEG"):
            tar.addfile(tarfile.TarInfo(name))
    return root


RESULTS = [
    {"image": "/data/val/n1/a.JPEG", "classes": [0, 1]},
    {"image": "b.JPEG", "classes": ["n3", "n1"]},
    {"image": "n3/a.JPEG", "box": [0, 0, 9, 9], "classes": [{"class": 2, "title": "c", "probability": 0.9}]},
    {"image": "c.JPEG", "classes": [1]},
]


def written(folder: Path, content: object) -> Path:
    path = folder / "classes.json"
    path.write_text(json.dumps(content))
    return path


def test_classes_of_folders(folder: Path, tmp_path: Path) -> None:
    options = ["score", "classes", str(written(tmp_path, RESULTS)), "--annotations", str(folder)]
    assert "| 4 | 0.500 | 0.750 |" in CliRunner().invoke(cli, options, standalone_mode=False).output
    assert score_classes(written(tmp_path, RESULTS), folder)[0] == {"top1": 0.5, "top5": 0.75, "count": 4}


def test_classes_beyond_the_fifth_do_not_count(tmp_path: Path) -> None:
    labels = tmp_path / "val.txt"
    labels.write_text("x.JPEG 7\ny z.JPEG 700\n")
    results = [{"image": "x.JPEG", "classes": [1, 2, 3, 4, 7]}, {"image": "y z.JPEG", "classes": [1, 2, 3, 4, 5, 700]}]
    assert score_classes(written(tmp_path, results), labels)[0] == {"top1": 0.0, "top5": 0.5, "count": 2}


def test_the_official_labels(samples: Path, tmp_path: Path) -> None:
    """Of ImageNet's first five validation images, whose numbers are known."""
    official = (samples / "imagenet/ILSVRC2012_val_synset_labels.txt").read_text().splitlines()
    index = json.loads((samples / "imagenet/imagenet_class_index.json").read_text())
    number = {name: int(place) for place, (name, _) in index.items()}
    results = [
        {"image": f"val/ILSVRC2012_val_{place:08d}.JPEG", "classes": [number[name]]}
        for place, name in enumerate(official, 1)
    ]
    assert [result["classes"][0] for result in results[:5]] == [65, 970, 230, 809, 516]
    results[4]["classes"] = [0, 516]
    labels = samples / "imagenet/ILSVRC2012_val_synset_labels.txt"
    measures, _ = score_classes(written(tmp_path, results), labels)
    assert measures == {"top1": 49999 / 50000, "top5": 1.0, "count": 50000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "4 of the 4 images of .* have no result: n1/a.JPEG"),
        (RESULTS[:3], "1 of the 4 images of .* have no result: n3/c.JPEG"),
        ([*RESULTS, RESULTS[0]], "record 4 .* a second result for image n1/a.JPEG"),
        ([{"image": "a.JPEG", "classes": [0]}], "record 0 .* is none of"),
        ([{"image": "b.JPEG", "classes": [3]}], "record 0 .* field 'classes'"),
        ([{"image": "b.JPEG", "classes": []}], "record 0 .* field 'classes'"),
        ([{"image": "b.JPEG", "classes": [0, 0]}], "record 0 .* field 'classes'"),
        ([{"image": "b.JPEG", "classes": ["n2", None]}], "record 0 .* field 'classes'"),
        ([{"image": "b.JPEG"}], "record 0 .* field 'classes'"),
        ([{"classes": [0]}], "record 0 .* names no image"),
        ("text", "record 0 .* names no image"),
    ],
)
def test_wrong_results_give_one_sentence(folder: Path, tmp_path: Path, change: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        score_classes(written(tmp_path, change), folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "a.JPEG 1\n2\n", "490\n361\n"])
def test_wrong_lists_give_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text(content)
    with pytest.raises(UserError, match="expected a folder of class folders; a text file with an image and its class"):
        score_classes(written(tmp_path, RESULTS), tmp_path / "val.txt")


def test_missing_and_binary_lists_give_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "val.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("none", "no such file"),
        ("val.bin", "cannot be read as text"),
        ("empty", "no class folders"),
    ]:
        with pytest.raises(UserError, match=message):
            score_classes(written(tmp_path, RESULTS), tmp_path / name)
