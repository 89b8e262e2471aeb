"""Every loader of other people's files: damaged bytes and odd values give a result or one `UserError`, in bounded time
and memory. Further loaders: tests/pipelines/test_fuzzed_files.py, test_foreign_data.py, test_foreign_checkpoints.py,
test_archives.py, test_params.py."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

import tcformer
from tcformer.body.files import load_regressors, load_smpl, load_vertex_ids
from tcformer.data import load_bodies, load_faces, load_people
from tcformer.data.imagenet.class_archives import read_index, validation_classes
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.wholebody.dataset import annotated_crops, detected_crops
from tcformer.metrics import evaluate_wholebody
from tcformer.models.weights import load_initial
from tcformer.tasks.imagenet.drawing import class_titles
from tcformer.tasks.imagenet.predict import _titles
from tests.fuzzing import (
    ARRAYS,
    FUZZING,
    JSON,
    LARGE,
    OBJECTS,
    bounded_memory,
    damaged,
    json_file,
    json_with_any_value,
    load_or_refuse,
    text_file,
)
from tests.tcformer.data.test_broken_inputs import sequence
from tests.tcformer.data.test_class_archives import devkit, write_tar
from tests.tcformer.data.test_face_data import face_line
from tests.tcformer.data.test_foreign_data import record
from tests.tcformer.data.test_mesh_files import eft, spin, write_eft
from tests.tcformer.data.test_mpi_inf_3dhp import annotations
from tests.tcformer.data.test_point_files import coco, images, mpii
from tests.tcformer.data.test_wholebody_data import content, person

FRAMES = 7
SEQUENCE = ("sequence", "betas", "poses", "genders", "poses2d", "cam_poses", "campose_valid")


@pytest.fixture(scope="module", autouse=True)
def one_sequence() -> Iterator[None]:
    """MPI-INF-3DHP has one sequence here instead of 16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpi_inf_3dhp, "SUBJECTS", (1,))
        patch.setattr(mpi_inf_3dhp, "SEQUENCES", (1,))
        yield


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    with bounded_memory():
        yield


def body_model(vertices: int = 12) -> dict[str, Any]:
    """The fields of a body model of few vertices."""
    table = np.stack([np.maximum(np.arange(24) - 1, 0), np.arange(24)]).astype(np.uint32)
    rng = np.random.default_rng(0)
    return {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": rng.normal(size=(vertices, 3, 10)),
        "posedirs": rng.normal(size=(vertices, 3, 207)),
        "J_regressor": np.full((24, vertices), 1 / vertices),
        "weights": np.full((vertices, 24), 1 / 24),
        "kintree_table": table,
        "f": np.array([[0, 1, 2], [2, 3, 4]], np.uint32),
    }


def write_npz(path: Path, fields: dict[str, Any]) -> Path:
    np.savez(path, **fields)
    return path


def write_pickle(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=2))
    return path


def spin_file(folder: Path, **changes: Any) -> Path:
    return write_npz(folder / "set.npz", spin(**changes))


def walk(folder: Path, **changes: Any) -> Path:
    """The folder of 3DPW's sequences."""
    return sequence(folder, lambda made: made.update(changes)) / "walk.pkl"


def joints_mat(folder: Path, joints: object = None) -> Path:
    images(folder / "images", "im0001.jpg", "im0002.jpg")
    values = np.random.default_rng(0).uniform(5, 90, (3, 14, 2)) if joints is None else joints
    savemat(folder / "joints.mat", {"joints": values})
    return folder / "joints.mat"


def annot_mat(folder: Path, **changes: Any) -> Path:
    path = folder / "S1/Seq1/annot.mat"
    for camera in mpi_inf_3dhp.CAMERAS:
        frames = path.parent / f"imageFrames/video_{camera}"
        frames.mkdir(parents=True, exist_ok=True)
        for number in range(1, FRAMES + 1):
            (frames / f"frame_{number:06d}.jpg").touch()
    savemat(path, {**annotations(0, FRAMES), **changes})
    return path


def meta_mat(folder: Path) -> Path:
    path = devkit(folder / "devkit", {1: "n00000001", 2: "n00000002"}, [2, 1, 1])
    return path / "data/meta.mat"


def class_tar(folder: Path) -> Path:
    write_tar(folder / "n00000001.tar", {"a.JPEG": b"123", "b.JPEG": b"4567"})
    return folder / "n00000001.tar"


def weights(folder: Path) -> Path:
    path = folder / "weights.safetensors"
    tcformer.save_model(tcformer.create_model("tcformer_nano", "imagenet", num_classes=4), path, {"origin": "here"})
    return path


NETWORK = tcformer.create_model("tcformer_nano", "imagenet", num_classes=4)
PEOPLE = load_people(content(person(1), person(2)))
SMALL = body_model()
#: A regressor whose left joints lie on the left.
SIDES = np.zeros((17, 12))
SIDES[[1, 2, 3, 11, 12, 13], SMALL["v_template"][:, 0].argmax()] = 1
SIDES[[4, 5, 6, 14, 15, 16], SMALL["v_template"][:, 0].argmin()] = 1
NPY = {"J_regressor_h36m.npy": (17, 12), "J_regressor_extra.npy": (9, 12)}


def regressors(folder: Path) -> Path:
    for name, shape in NPY.items():
        np.save(folder / name, SIDES[: shape[0]])
    return folder / "J_regressor_extra.npy"


def load_small_regressors(path: Path) -> None:
    load_regressors(path.parent, load_smpl(write_npz(path.with_name("SMPL_NEUTRAL.npz"), SMALL)))


def load_ids(path: Path) -> None:
    load_vertex_ids(path.parent, load_smpl(write_npz(path.with_name("SMPL_NEUTRAL.npz"), SMALL)))


#: A file in its format, and what reads it.
FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "SPIN": (spin_file, load_bodies),
    "3DPW": (walk, lambda path: load_bodies(path.parent)),
    "EFT": (lambda folder: write_eft(folder, eft(), eft()), load_bodies),
    "COCO for meshes": (json_file("coco.json", coco()), load_bodies),
    "MPII": (json_file("mpii.json", mpii()), load_bodies),
    "LSP": (joints_mat, load_bodies),
    "MPI-INF-3DHP": (annot_mat, lambda path: mpi_inf_3dhp.select(path.parents[2])),
    "ILSVRC's devkit": (meta_mat, lambda path: validation_classes(path.parents[1])),
    "class tar": (class_tar, read_index),
    "COCO-WholeBody": (
        json_file("people.json", content(person(1), person(2))),
        lambda path: annotated_crops(load_people(path)),
    ),
    "detections": (
        json_file("boxes.json", [{"image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}]),
        lambda path: detected_crops(path, PEOPLE, least_score=0.0),
    ),
    "results": (
        json_file("results.json", [record()]),
        lambda path: evaluate_wholebody(content(person(1), person(2)), path),
    ),
    "WFLW": (text_file("faces.txt", f"{face_line()}\n{face_line('b.jpg')}\n"), load_faces),
    "body model": (lambda folder: write_npz(folder / "SMPL_NEUTRAL.npz", SMALL), load_smpl),
    "published body model": (lambda folder: write_pickle(folder / "SMPL_NEUTRAL.pkl", SMALL), load_smpl),
    "regressors": (regressors, load_small_regressors),
    "vertex numbers": (json_file("vertex_ids.json", {"nose": 3, "reye": 4}), load_ids),
    "weights": (weights, tcformer.load_model),
    "weights of a backbone": (weights, lambda path: load_initial(NETWORK, path)),
    "titles": (json_file("titles.json", {"0": ["n1", "cat"], "1": ["n2", "dog"]}), lambda path: _titles(path, 2)),
    "titles as text": (text_file("titles.txt", "cat\ndog\n"), lambda path: _titles(path, 2)),
}


@pytest.mark.parametrize("kind", FILES)
@FUZZING
@given(data=st.data())
def test_any_damage_is_read_or_refused(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage" / kind
    folder.mkdir(parents=True, exist_ok=True)
    make, load = FILES[kind]
    if not (folder / "whole").exists():
        path = make(folder)
        load(path)
        (folder / "whole").write_bytes(path.read_bytes())
        (folder / "name").write_text(str(path))
    path = Path((folder / "name").read_text())
    path.write_bytes(data.draw(damaged((folder / "whole").read_bytes())))
    load_or_refuse(load, path)


JSON_FILES = {
    "EFT": (lambda: {"ver": 0.1, "data": [eft(), eft()]}, load_bodies),
    "COCO for meshes": (coco, load_bodies),
    "MPII": (mpii, load_bodies),
    "COCO-WholeBody": (lambda: content(person(1), person(2)), lambda path: annotated_crops(load_people(path))),
    "detections": (
        lambda: [{"image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}],
        FILES["detections"][1],
    ),
    "results": (lambda: [record()], FILES["results"][1]),
    "vertex_ids": (lambda: {"nose": 3, "reye": 4}, load_ids),
    "titles": (lambda: {"0": ["n1", "cat"], "1": ["n2", "dog"]}, FILES["titles"][1]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", JSON_FILES)
@FUZZING
@given(data=st.data())
def test_any_value_anywhere_in_json(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    make, load = JSON_FILES[kind]
    path = tmp_path_factory.getbasetemp() / f"{kind}.json"
    path.write_text(data.draw(json_with_any_value(make())))
    load_or_refuse(load, path)


@FUZZING
@given(value=ARRAYS, data=st.data())
def test_any_array_in_npz(value: np.ndarray, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    field = data.draw(st.sampled_from(list(spin())))
    load_or_refuse(load_bodies, spin_file(folder, **{field: value}))
    field = data.draw(st.sampled_from(list(SMALL)))
    load_or_refuse(load_smpl, write_npz(folder / "SMPL_MALE.npz", {**SMALL, field: value}))
    path = regressors(folder)
    if value.dtype.kind != "M":
        np.save(folder / data.draw(st.sampled_from(list(NPY))), value)
    load_or_refuse(load_small_regressors, path)


@pytest.mark.parametrize("value", LARGE, ids=["zeros", "texts", "lists"])
def test_what_is_small_in_a_pickle_stays_small(value: object, tmp_path: Path) -> None:
    for field in SEQUENCE:
        for given_value in (value, [value]):
            load_or_refuse(lambda path: load_bodies(path.parent), walk(tmp_path, **{field: given_value}))
    for field in SMALL:
        load_or_refuse(load_smpl, write_pickle(tmp_path / "SMPL_FEMALE.pkl", {**SMALL, field: value}))


@FUZZING
@given(value=OBJECTS, data=st.data())
def test_any_object_in_pickles(value: object, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "sequences"
    folder.mkdir(exist_ok=True)
    field, wrapped = data.draw(st.sampled_from(SEQUENCE)), data.draw(st.booleans())
    load_or_refuse(lambda path: load_bodies(path.parent), walk(folder, **{field: [value] if wrapped else value}))
    field = data.draw(st.sampled_from(list(SMALL)))
    load_or_refuse(load_smpl, write_pickle(folder.parent / "SMPL_FEMALE.pkl", {**SMALL, field: value}))


@FUZZING
@given(value=ARRAYS, cells=st.booleans(), data=st.data())
def test_any_array_in_mat(
    value: np.ndarray, cells: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if value.dtype.kind == "M":  # MATLAB has no such type
        value = value.astype("i8")
    folder = tmp_path_factory.getbasetemp()
    load_or_refuse(load_bodies, joints_mat(folder, value))
    field: Any = value
    if cells:
        field = annotations(0, FRAMES)["annot2"]
        field[data.draw(st.integers(0, 13)), 0] = value
    path = annot_mat(folder, **{data.draw(st.sampled_from(["annot2", "annot3"])): field})
    load_or_refuse(lambda path: mpi_inf_3dhp.select(path.parents[2]), path)


@FUZZING
@given(text=JSON)
def test_any_titles_of_generated_classes(text: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("classes", numbered=True)
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / "1.jpg").touch()
    (root / "classes.json").write_text(json.dumps(text))
    load_or_refuse(lambda path: class_titles(path.parent, 2), root / "classes.json")
