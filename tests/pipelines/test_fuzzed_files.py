"""Files that the pipeline reads, damaged or with odd values: a result or one `UserError`, in bounded time and memory.

Further loaders: tests/tcformer/test_fuzzed_datasets.py; params.yaml, archives and checkpoints in their own tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.adapters.storage import Store
from pipelines.datasets.prepared import MANIFEST, Prepared
from pipelines.driver.stored import stored_trainings
from pipelines.prediction.box_files import BoxFile
from pipelines.prediction.inputs import opened_video
from pipelines.prediction.score import score_face, score_wholebody
from pipelines.prediction.weights import describe
from pipelines.report.read import read_history, read_json_object
from pipelines.reproduction.record import Conditions, SeedRecord, read_record, write_record
from pipelines.training import checkpoint
from tests.fuzzing import (
    FUZZING,
    JSON,
    bounded_memory,
    damaged,
    json_file,
    json_with_any_value,
    load_or_refuse,
    text_file,
)
from tests.tcformer.data.test_face_data import face_line
from tests.tcformer.data.test_foreign_data import TRUTH, record


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    with bounded_memory():
        yield


def boxes_of(path: Path) -> None:
    BoxFile(path).of(Path("photos/a.jpg"))


def video(folder: Path) -> Path:
    writer = cv2.VideoWriter(str(folder / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for level in (0, 100, 200):
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    return folder / "a.avi"


def watch(path: Path) -> None:
    with opened_video(path) as opened:
        for number, _ in enumerate(opened.frames()):
            assert number < 100


def faces(path: Path) -> None:
    truth = path.with_name("list.txt")
    truth.write_text(f"{face_line()}\n")
    score_face(path, truth)


def poses(path: Path) -> None:
    truth = path.with_name("truth.json")
    truth.write_text(json.dumps(TRUTH))
    score_wholebody(path, truth)


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
}
SEEDS = SeedRecord(Conditions("abc", "a CPU", 2, "native"), "2026-01-01", (0, 1), {"top1": (0.5, 0.6)})


def seeds(folder: Path) -> Path:
    write_record(SEEDS, folder / "seeds.json")
    return folder / "seeds.json"


#: Values of JSON files, and what reads them.
VALUES: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    "boxes of COCO": (COCO, boxes_of),
    "boxes by name": ({"a.jpg": [[1, 2, 3, 4], [1, 2, 3, 5]], "b.jpg": [1, 2, 3, 4]}, boxes_of),
    "detections": ([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], boxes_of),
    "results": ([record()], poses),
    "faces": ([{"index": 0, "points": [[1.0, 2.0]] * 98}], faces),
    "prepared": ({"root": None, "sha256": "abc"}, lambda path: Prepared.open(path.parent)),
    "metrics": ({"top1": 0.5}, read_json_object),
    "seeds": (asdict(SEEDS), read_record),
}
FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    **{kind: (json_file(f"{kind}.json", value), load) for kind, (value, load) in VALUES.items() if kind != "prepared"},
    "prepared": (json_file(MANIFEST, VALUES["prepared"][0]), VALUES["prepared"][1]),
    "boxes of WFLW": (text_file("boxes.txt", f"{face_line()}\n"), boxes_of),
    "faces as text": (text_file("faces.txt", " ".join(["1.5"] * 196)), faces),
    "curve": (text_file("training.csv", "step,loss\n1,0.5\n2,\n"), read_history),
    "video": (video, watch),
}


@pytest.mark.parametrize("kind", FILES)
@FUZZING
@given(data=st.data())
def test_any_damage_is_read_or_refused(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage" / kind
    make, load = FILES[kind]
    if not folder.exists():
        folder.mkdir(parents=True)
        load(make(folder))
    path = make(folder)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    load_or_refuse(load, path)


@pytest.mark.parametrize("kind", VALUES)
@FUZZING
@given(data=st.data())
def test_any_value_anywhere_in_json(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content, load = VALUES[kind]
    folder = tmp_path_factory.getbasetemp() / "values" / kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (MANIFEST if kind == "prepared" else f"{kind}.json")
    path.write_text(data.draw(json_with_any_value(content)))
    load_or_refuse(load, path)


@FUZZING
@given(value=JSON, data=st.data())
def test_a_damaged_store_stops_no_training(
    value: object, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its trainings are unknown or unusable, which is no error: a new one starts."""
    root = tmp_path_factory.getbasetemp() / "store"
    name = f"finetune-face-{'0' * 16}"
    for folder in (root / name / "step-00000001", root / name / "other"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / name / "step-00000001" / "weights").write_bytes(b"1")
    text = json.dumps(data.draw(st.sampled_from([value, {"recipe": value, "inputs": value}, {"weights": value}])))
    (root / name / "inputs.json").write_text(text)
    assert [found.step for found in stored_trainings(Store(str(root)))] in ([], [1])
    (root / name / "step-00000001" / checkpoint.MANIFEST).write_text(text)
    store = Store(str(root / name))
    assert checkpoint.fault(store, "step-00000001", root / "cache") is not None or json.loads(text) == {}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\ufffe", ""])
def test_deep_json_and_no_json(text: str, tmp_path: Path) -> None:
    for kind, (_, load) in VALUES.items():
        folder = tmp_path / kind
        folder.mkdir()
        path = folder / (MANIFEST if kind == "prepared" else f"{kind}.json")
        path.write_text(text, encoding="utf-8")
        load_or_refuse(load, path)


def test_weights_are_described_whatever_lies_beside_them(tmp_path: Path) -> None:
    import tcformer

    path = tmp_path / "model.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=4), path)
    for text in ("[" * 100_000, "[]", "{", '{"a": 1}'):
        (tmp_path / "provenance.json").write_text(text)
        assert ("provenance" in describe(path)) == (text == '{"a": 1}')
