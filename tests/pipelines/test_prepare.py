"""Official downloads: tiny archives in the publishers' layouts, prepared, interrupted, damaged, incomplete."""

import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import savemat

from pipelines.datasets import mapping, survey, unpacking
from pipelines.datasets import prepare as preparing
from pipelines.datasets.archives import md5_of_file
from pipelines.datasets.downloads import Finding, check
from pipelines.datasets.key_lines import line_of
from pipelines.datasets.location import MANIFEST
from pipelines.datasets.prepare import prepare
from pipelines.datasets.prepared import Prepared
from pipelines.params import Params, load_params
from stages import prepare as stage
from tcformer.body.files import SmplArrays, load_smpl, save_smpl_pickle
from tcformer.data.imagenet.dataset import ImageFolderDataset, find_classes
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.mesh.files import load_spin
from tcformer.data.official import Archive, Inventory, OfficialDataset, Origin, Original, RequiredPath, Source
from tcformer.errors import UserError
from tcformer.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def params_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `parameters` writes and that messages refer to."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    for module in (survey, preparing):
        monkeypatch.setattr(module, "PARAMS", path)
    return path


def parameters(
    task: str,
    root: Path | None,
    *,
    source: str = "official",
    mixture: Sequence[tuple[str, str]] = (),
    tests: Sequence[tuple[str, str]] = (),
) -> Params:
    """The repository's parameters, with a task's data below `root` and, if given, other sources of the mesh task.

    Args:
        mixture: annotations and images of training sets.
        tests: annotations and images of test sets with gendered bodies.
    """
    yaml = YAML()
    tree = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    recipe = tree["sample"]
    recipe["data"][task] |= {"source": source, "root": None if root is None else str(root)}
    options = recipe["finetune"]["mesh"]["task"]
    options["mixture"] = [{"weight": 1.0, "sources": [{"annotations": a, "images": i} for a, i in mixture]}]
    options["validation"] |= {"annotations": VALIDATION[0], "images": VALIDATION[1], "protocol": "h36m"}
    recipe["evaluate"]["mesh"]["options"]["tests"] = [
        {"name": f"test {number}", "annotations": a, "images": i, "protocol": "3dpw"}
        for number, (a, i) in enumerate(tests)
    ]
    yaml.dump(tree, survey.PARAMS)
    return load_params(survey.PARAMS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where downloads lie; people have spaces in their paths."""
    (tmp_path / "my data").mkdir()
    return tmp_path / "my data"


def run(task: str, root: Path, out: str = "out", **sources: Any) -> dict[str, Any]:
    folder = root.parent / out
    prepare(task, parameters(task, root, **sources), folder)
    return dict(json.loads((folder / MANIFEST).read_text()))


def tree(root: Path) -> dict[str, str]:
    """The hash of every file below a folder except those in the work folder."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and unpacking.WORK_FOLDER not in path.parts)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return stream.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, task: str, root: Path) -> None:
    """Replace the published checksums of the whole datasets by those of the archives in `root`."""

    def republished(archive: Archive) -> Archive:
        path = root / archive.name
        return dataclasses.replace(archive, md5=md5_of_file(path)) if archive.md5 and path.exists() else archive

    module = TASKS[task].part("official")
    origins = tuple(
        dataclasses.replace(origin, archives=tuple(map(republished, origin.archives)))
        for origin in module.OFFICIAL.origins
    )
    monkeypatch.setattr(module, "OFFICIAL", dataclasses.replace(module.OFFICIAL, origins=origins))


# ImageNet

WNIDS = {1: "n00000003", 2: "n00000001", 3: "n00000002"}  # ILSVRC2012_ID: not the order of the sorted wnids
TRUTH = [2, 3, 3, 1]


def imagenet_images() -> dict[str, dict[str, bytes]]:
    """split/wnid -> name -> bytes: what the folders must hold."""
    images: dict[str, dict[str, bytes]] = {}
    for number, wnid in WNIDS.items():
        images[f"train/{wnid}"] = {f"{wnid}_{9 - i}.JPEG": jpeg(10 * number + i) for i in range(3)}
    for place, number in enumerate(TRUTH, 1):
        images.setdefault(f"val/{WNIDS[number]}", {})[f"ILSVRC2012_val_{place:08d}.JPEG"] = jpeg(place)
    return images


@pytest.fixture
def imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images = imagenet_images()
    classes = {f"{w}.tar": tar_of(images[f"train/{w}"]) for w in WNIDS.values()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(classes))
    val = {name: data for key, names in images.items() if key.startswith("val") for name, data in names.items()}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    synsets = [*((number, wnid, "words", 0) for number, wnid in WNIDS.items()), (4, "n99999999", "entity", 3)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(synsets, fields).reshape(-1, 1)})
    devkit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in TRUTH).encode(),
    }
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(devkit, "w:gz"))
    publish(monkeypatch, "imagenet", root)
    return root


def test_imagenets_tars_become_class_tars_that_equal_class_folders(imagenet: Path, tmp_path: Path) -> None:
    manifest = run("imagenet", imagenet)
    folders = tmp_path / "folders"
    for folder, images in imagenet_images().items():
        (folders / folder).mkdir(parents=True)
        for name, data in images.items():
            (folders / folder / name).write_bytes(data)
    for split in ("train", "val"):
        tars, files = (
            ImageFolderDataset(place, split, find_classes(place, 3), 32, 0.875)  # type: ignore[arg-type]
            for place in (Prepared.open(tmp_path / "out").root, folders)
        )
        assert tars.labels.tolist() == files.labels.tolist() and len(tars) > 3
        assert tars._names.tolist() == files._names.tolist()
        for i in range(len(tars)):
            assert np.array_equal(tars.sample(i, None)["image"], files.sample(i, None)["image"])
    assert not list(imagenet.rglob("*.JPEG")), "no image is a file of its own"
    assert manifest["counts"] == {"train classes": 3, "train images": 9, "val classes": 3, "val images": 4}
    again = run("imagenet", folders, "of folders")
    assert again["identities"] == manifest["identities"] and again["sha256"] == manifest["sha256"]


@pytest.mark.slow
def test_a_second_run_is_the_same_and_reads_no_archive(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("imagenet", imagenet)
    before = tree(imagenet)
    monkeypatch.setattr(unpacking, "_check", None)
    monkeypatch.setattr(unpacking, "_unpack", None)
    assert run("imagenet", imagenet) == first and tree(imagenet) == before
    assert (imagenet.parent / "out" / MANIFEST).read_text() == json.dumps(first, indent=1)


@pytest.mark.slow
def test_the_devkit_is_needed_only_for_the_archive(imagenet: Path) -> None:
    (imagenet / "ILSVRC2012_devkit_t12.tar.gz").rename(imagenet / "away")
    with pytest.raises(UserError, match=r"1 of the files .* are missing:\n  ILSVRC2012_devkit_t12\n.*image-net.org"):
        run("imagenet", imagenet)
    assert not (imagenet / "train").exists(), "missing files are reported before anything is unpacked"
    (imagenet / "away").rename(imagenet / "ILSVRC2012_devkit_t12.tar.gz")
    run("imagenet", imagenet)
    shutil.rmtree(imagenet / "ILSVRC2012_devkit_t12")
    (imagenet / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    run("imagenet", imagenet)


def test_a_wrong_checksum_is_refused_before_anything_is_unpacked(imagenet: Path) -> None:
    path = imagenet / "ILSVRC2012_img_val.tar"
    expected = md5_of_file(path)
    path.write_bytes(path.read_bytes() + b"\0")
    before = tree(imagenet)
    with pytest.raises(UserError) as caught:
        run("imagenet", imagenet)
    message = str(caught.value)
    assert f"{path}: the MD5 is {md5_of_file(path)}: expected the published {expected}" in message
    assert "delete it and download it again" in message and "\n" not in message
    assert tree(imagenet) == before and not (imagenet.parent / "out").exists()


@pytest.mark.slow
def test_checksums_are_remembered_until_the_file_changes(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    def count(path: Path, progress: Any) -> str:
        computed.append(path.name)
        return md5_of_file(path, progress)

    monkeypatch.setattr(unpacking, "md5_of_file", count)
    monkeypatch.setattr(unpacking, "require_space", lambda *ignored: stop())

    def stop() -> None:
        raise UserError("stopped")

    for expected in (3, 3):
        with pytest.raises(UserError, match="stopped"):
            run("imagenet", imagenet)
        assert len(computed) == expected
    assert all(row.is_good for row in check("imagenet", parameters("imagenet", imagenet))) and len(computed) == 3
    os.utime(imagenet / "ILSVRC2012_img_train.tar", (1, 1))
    with pytest.raises(UserError, match="stopped"):
        run("imagenet", imagenet)
    assert computed[3:] == ["ILSVRC2012_img_train.tar"]
    # One wrong archive does not make the others be read again.
    (imagenet / "ILSVRC2012_img_val.tar").write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(UserError, match="expected the published"):
            run("imagenet", imagenet)
    assert computed[4:] == ["ILSVRC2012_img_val.tar"]


def test_an_outer_tar_of_other_things_is_refused(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for files, reason in (
        (
            {"n00000001.tar": tar_of({"a/b.JPEG": b"x"})},
            "ILSVRC2012_img_train.tar, in it n00000001.tar: .* without folders",
        ),
        ({"../n00000001.tar": b""}, "a path outside the target"),
        ({"photo.JPEG": b"x"}, "expected class tars like n01440764.tar"),
    ):
        (imagenet / "ILSVRC2012_img_train.tar").write_bytes(tar_of(files))
        publish(monkeypatch, "imagenet", imagenet)
        with pytest.raises(UserError, match=reason):
            run("imagenet", imagenet)
        assert not (imagenet / "train").exists() and not list((imagenet / unpacking.WORK_FOLDER).rglob("*.tar"))


def test_folders_without_images_are_reported(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "n00000001").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"2 of .* missing:\n  train \(it contains no class folders or class tars with images"
    ):
        run("imagenet", root)


# WFLW


def face_line(seed: int, image: str) -> str:
    rng = np.random.default_rng(seed)
    points = " ".join(f"{value:.6f}" for value in rng.uniform(5, 25, 196))
    return f"{points} 1 1 29 29 0 0 0 0 0 0 {image}\n"


@pytest.fixture
def face(root: Path) -> Path:
    names = [f"0--Parade/{i}.jpg" for i in range(3)]
    lists = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{}.txt"
    annotations = {
        lists.format("train"): "".join(face_line(i, names[i]) for i in (0, 1)).encode(),
        lists.format("test"): face_line(2, names[2]).encode(),
    }
    images = {f"WFLW_images/{name}": jpeg(i) for i, name in enumerate(names)}
    (root / "WFLW_annotations.tar.gz").write_bytes(tar_of(annotations, "w:gz"))
    (root / "WFLW_images.tar.gz").write_bytes(tar_of(images, "w:gz"))
    return root


def test_wflw_is_unpacked_counted_and_named(face: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = run("face", face)
    assert manifest["counts"] == {"train faces": 2, "test faces": 1}
    assert manifest["root"] == str(face) and manifest["source"] == "official" and manifest["task"] == "face"
    assert Prepared.open(face.parent / "out") == Prepared(face, manifest["sha256"], True)
    printed = capsys.readouterr().out
    assert "warning" in printed and "2 train faces, but 7500 are published" in printed
    assert sorted(path.name for path in face.iterdir() if path.is_dir()) == [
        unpacking.WORK_FOLDER,
        "WFLW_annotations",
        "WFLW_images",
    ]


def test_another_byte_is_another_sha256(face: Path) -> None:
    first = run("face", face)
    path = face / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
    path.write_text(path.read_text().replace(" 29 29 ", " 29 28 "))
    second = run("face", face)
    (face / "WFLW_images/0--Parade/0.jpg").write_bytes(jpeg(0) + b"\0")
    third = run("face", face)
    assert len({first["sha256"], second["sha256"], third["sha256"]}) == 3
    assert second["identities"]["WFLW_images"] == first["identities"]["WFLW_images"]


def test_missing_images_are_reported(face: Path) -> None:
    run("face", face)
    (face / "WFLW_images/0--Parade/1.jpg").unlink()
    (face / "WFLW_images/0--Parade/2.jpg").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        run("face", face)
    message = str(caught.value)
    assert f"{face}: 2 of the files" in message and "WFLW_images/0--Parade/1.jpg\n" in message
    assert "WFLW_images/0--Parade/2.jpg (it is empty)" in message and "wywu.github.io" in message
    assert f"WFLW_images.tar.gz exists: remove {face / 'WFLW_images'} to have it unpacked again" in message
    assert "WFLW_annotations.tar.gz exists" not in message


def test_an_incomplete_folder_is_not_overwritten(face: Path) -> None:
    (face / "WFLW_annotations").mkdir()
    (face / "WFLW_annotations/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"WFLW_annotations.tar.gz exists: remove .*WFLW_annotations to have"):
        run("face", face)
    assert [path.name for path in (face / "WFLW_annotations").iterdir()] == ["notes.txt"]


def test_a_run_after_a_killed_one_unpacks_only_the_remaining_archives(
    face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = face.parent / "whole"
    shutil.copytree(face, whole)
    run("face", whole)
    move = unpacking._move_to_target
    done: list[str] = []

    def killed_at_the_second(part: Path, target: Path) -> None:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(target.name)
        move(part, target)

    monkeypatch.setattr(unpacking, "_move_to_target", killed_at_the_second)
    process = multiprocessing.get_context("fork").Process(target=run, args=("face", face))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finished, left = sorted(("WFLW_annotations", "WFLW_images"), key=lambda name: not (face / name).exists())
    assert (face / finished).exists() and not (face / left).exists()
    assert (face / unpacking.WORK_FOLDER / "parts" / f"{left}.tar.gz").exists(), "what it was about to rename"
    monkeypatch.setattr(unpacking, "_move_to_target", move)
    kept = (face / finished).stat().st_ino
    run("face", face)
    assert (face / finished).stat().st_ino == kept, "it was not unpacked again"
    assert tree(face) == tree(whole) and not (face / unpacking.WORK_FOLDER / "parts").exists()


def test_too_small_a_disk_is_reported_before_anything_is_unpacked(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(face)._replace(free=1000)
    monkeypatch.setattr("pipelines.datasets.archives.shutil.disk_usage", lambda path: usage)
    before = tree(face)
    with pytest.raises(UserError, match=r"1000 bytes are free on its disk: expected \d+ .* for unpacking"):
        run("face", face)
    assert tree(face) == before


def test_an_unsafe_archive_is_refused_before_the_good_ones_are_unpacked(face: Path) -> None:
    (face / "WFLW_images.tar.gz").write_bytes(tar_of({"WFLW_images/../../evil.jpg": b"x"}, "w:gz"))
    before = tree(face.parent)
    with pytest.raises(UserError, match="a path outside the target"):
        run("face", face)
    assert tree(face.parent) == before
    (face / "WFLW_images.tar.gz").write_bytes(tar_of({}, "w:gz"))
    with pytest.raises(UserError, match="contains no files"):
        run("face", face)


def test_two_processes_do_not_unpack_at_once(face: Path) -> None:
    locked = multiprocessing.get_context("fork").Event()

    def hold() -> None:
        with unpacking._locked_work_folder(face):
            locked.set()
            time.sleep(600)

    owner = multiprocessing.get_context("fork").Process(target=hold)
    owner.start()
    try:
        assert locked.wait(60)
        expected = f"{face}: process {owner.pid} on {socket.gethostname()} is unpacking archives there: wait until"
        with pytest.raises(UserError) as caught:
            run("face", face)
        assert str(caught.value).startswith(expected)
        assert not (face / "WFLW_images").exists()
    finally:
        owner.kill()
        owner.join()
    run("face", face)  # the lock ended with its owner
    assert (face / "WFLW_images").exists() and not (face / unpacking.WORK_FOLDER / "lock-owner").exists()


def test_a_root_that_cannot_be_written_to_is_reported(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **ignored: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot be written to \(Permission denied\), .* allow writing, or unpack"):
        run("face", face)


# COCO-WholeBody


def test_wholebody_from_zips_and_loose_annotations(root: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = samples / "coco_wholebody"
    images = {path.name: path.read_bytes() for path in (source / "val2017").glob("*.jpg")}
    annotations = (source / "annotations/coco_wholebody_val_v1.0.json").read_bytes()
    for split in ("train", "val"):
        (root / f"{split}2017.zip").write_bytes(zip_of({f"{split}2017/{name}": data for name, data in images.items()}))
        (root / f"coco_wholebody_{split}_v1.0.json").write_bytes(annotations)
    detections = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    (root / detections).parent.mkdir()
    shutil.copy(source / detections, root / detections)  # this one is in its place already
    with pytest.raises(UserError, match="expected the published cced6f7f71b7629ddf16f17bbcfab6b2"):
        run("wholebody", root)
    publish(monkeypatch, "wholebody", root)
    manifest = run("wholebody", root)
    assert manifest["counts"] == {
        "train2017 images": 5, "train people": 26, "val2017 images": 5, "val people": 26
    }  # fmt: skip
    assert (root / "annotations/coco_wholebody_val_v1.0.json").read_bytes() == annotations
    assert (root / "train2017/000000000785.jpg").read_bytes() == images["000000000785.jpg"]
    assert [row for row in check("wholebody", parameters("wholebody", root)) if not row.is_good] == []
    (root / "annotations/coco_wholebody_val_v1.0.json").write_bytes(annotations[:1000])
    assert [row.state for row in check("wholebody", parameters("wholebody", root)) if not row.is_good] == ["wrong"]


def test_missing_files_are_reported_with_their_origin(root: Path) -> None:
    (root / "val2017").mkdir()
    (root / "val2017/000000000001.jpg").touch()
    with pytest.raises(UserError) as caught:
        run("wholebody", root)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{root}: 4 of the files and folders that the task wholebody needs are missing:"
    assert lines[1:5] == [
        "  annotations/coco_wholebody_train_v1.0.json",
        "  annotations/coco_wholebody_val_v1.0.json",
        "  person_detection_results/COCO_val2017_detections_AP_H_56_person.json",
        "  train2017",
    ]
    assert "github.com/jin-s13/COCO-WholeBody (licence: non-commercial research)" in lines[5]
    assert "put train2017.zip, val2017.zip, or the unpacked folders, in" in lines[7]
    assert not (root.parent / "out").exists() and [path.name for path in root.iterdir()] == ["val2017"]


def test_a_root_that_does_not_exist_is_reported(params_file: Path) -> None:
    params = parameters("face", None)
    line = line_of("sample.data.face.root", params_file)
    with pytest.raises(UserError) as caught:
        prepare("face", params, Path("nowhere"))
    assert str(caught.value).startswith(f"params.yaml:{line}: sample.data.face.root is null: expected the folder of")
    assert "WFLW_images; set it (docs/data.md)" in str(caught.value)
    with pytest.raises(UserError, match=rf"params.yaml:{line}: .*root is /no/such/folder: expected an existing folder"):
        prepare("face", parameters("face", Path("/no/such/folder")), Path("nowhere"))


# Bodies

VALIDATION = ("dataset_extras/validation.npz", "pictures")
MIXED = ("dataset_extras/one.npz", "pictures")


def write_spin(path: Path, images: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(images)
    np.savez(path, imgname=np.array(images), center=np.ones((count, 2)), scale=np.ones(count))


def small_model() -> SmplArrays:
    rng, vertices = np.random.default_rng(0), 30
    return SmplArrays(
        v_template=rng.random((vertices, 3), np.float32),
        shapedirs=rng.random((vertices, 3, 10), np.float32),
        posedirs=rng.random((vertices, 3, 207), np.float32),
        joint_regressor=rng.random((24, vertices), np.float32),
        weights=rng.random((vertices, 24), np.float32),
        parents=np.arange(24) - 1,
        faces=np.arange(30, dtype=np.int32).reshape(10, 3),
    )


@pytest.fixture
def bodies(root: Path) -> Path:
    """SMPL as published for two genders, as a renamed .pkl for the third; regressors deep in an archive."""
    arrays = small_model()
    models = {}
    for letter, version in (("m", "1.0.0"), ("m", "1.1.0"), ("f", "1.1.0")):
        path = root.parent / "model.pkl"
        save_smpl_pickle(arrays, path)
        models[f"SMPL_python_v.1.1.0/smpl/models/basicmodel_{letter}_lbs_10_207_0_v{version}.pkl"] = path.read_bytes()
    (root / "SMPL_python_v.1.1.0.zip").write_bytes(zip_of(models))
    (root / "body").mkdir()
    shutil.move(path, root / "body/SMPL_NEUTRAL.pkl")
    extras = {f"data/J_regressor_{name}.npy": name.encode() for name in ("h36m", "extra")}
    (root / "data.tar.gz").write_bytes(tar_of(extras, "w:gz"))
    write_spin(root / "dataset_extras/one.npz", ["a.jpg", "b.jpg"])
    write_spin(root / "dataset_extras/validation.npz", ["b.jpg"])
    (root / "pictures").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / "pictures" / name).write_bytes(jpeg(0))
    return root


def test_body_models_are_unpacked_and_converted_once(bodies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = run("mesh", bodies, mixture=[MIXED], tests=[MIXED])
    for gender in ("NEUTRAL", "MALE", "FEMALE"):
        model = load_smpl(bodies / f"body/SMPL_{gender}.npz")
        assert np.array_equal(model.v_template, small_model().v_template)
        assert f"body/SMPL_{gender}.npz" in manifest["identities"]
    assert (bodies / "body/J_regressor_h36m.npy").read_bytes() == b"h36m"
    assert manifest["counts"] == {"dataset_extras/one.npz people": 2, "dataset_extras/validation.npz people": 1}
    monkeypatch.setattr("tcformer.tasks.mesh.official.convert_smpl", None)
    assert run("mesh", bodies, mixture=[MIXED], tests=[MIXED]) == manifest


def test_human36m_is_not_expected_in_spins_archive(bodies: Path) -> None:
    shutil.move(bodies / "dataset_extras", bodies / "away")
    (bodies / "dataset_extras.tar.gz").write_bytes(tar_of({"dataset_extras/one.npz": b""}, "w:gz"))
    with pytest.raises(UserError, match=r"1 of .* missing:\n  dataset_extras/h36m_train.npz .*\n.*vision.imar.ro"):
        run("mesh", bodies, mixture=[MIXED, ("dataset_extras/h36m_train.npz", "pictures")])
    assert not (bodies / "dataset_extras").exists()


def test_a_malicious_model_is_refused(bodies: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch '{bodies}/executed'",)

    (bodies / "body/SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="refused, because it names"):
        run("mesh", bodies, mixture=[MIXED])
    assert not (bodies / "executed").exists() and not list((bodies / "body").glob("*.npz"))


def line_with(text: str, path: Path) -> int:
    """The first line that holds a text, from 1."""
    return next(number for number, line in enumerate(path.read_text().split("\n"), 1) if text in line)


def test_missing_sources_are_reported_with_the_line_to_remove(bodies: Path, params_file: Path) -> None:
    absent = [(f"eft_fit/{i}.json", f"coco/{i}") for i in range(6)]
    test = ("3DPW/sequenceFiles/test", "3DPW/imageFiles")
    with pytest.raises(UserError) as caught:
        run("mesh", bodies, mixture=[MIXED, *absent], tests=[test])
    message = str(caught.value)
    line = line_with("annotations: eft_fit/0.json", params_file)
    assert "14 of the files" in message and "  and 4 more" in message
    assert f"  eft_fit/0.json (named at params.yaml:{line}: remove that source to train without it)" in message
    assert "facebookresearch/eft (licence: CC BY-NC 4.0)" in message
    assert "3DPW: download from https://virtualhumans" in message
    assert not (bodies / "body/SMPL_MALE.npz").exists()
    parameters("mesh", bodies, mixture=[MIXED], tests=[test])
    line = line_with("name: test 0", params_file)
    with pytest.raises(UserError, match=rf"3DPW/sequenceFiles/test \(named at params.yaml:{line}\)\n"):
        run("mesh", bodies, mixture=[MIXED], tests=[test])
    (bodies / "pictures/a.jpg").unlink()
    line = line_with("annotations: dataset_extras/one.npz", params_file)
    with pytest.raises(UserError, match=rf"pictures/a.jpg \(named at params.yaml:{line}: remove that source"):
        run("mesh", bodies, mixture=[MIXED])


@pytest.mark.slow
def test_mpi_inf_3dhp_is_made_from_its_originals(bodies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi_inf_3dhp, "SUBJECTS", (1,))
    monkeypatch.setattr(mpi_inf_3dhp, "SEQUENCES", (1,))
    sequence = bodies / "mpi_inf_3dhp/S1/Seq1"
    sequence.mkdir(parents=True)
    fields = {}
    for name, size in (("annot2", 56), ("annot3", 84)):
        cells = np.empty((14, 1), object)
        for camera in range(14):
            cells[camera, 0] = np.random.default_rng(camera).uniform(100, 900, (5, size))
        fields[name] = cells
    named = ("dataset_extras/mpi_inf_3dhp_train.npz", "mpi_inf_3dhp")
    with pytest.raises(UserError, match=r"dataset_extras/mpi_inf_3dhp_train\.npz"):
        run("mesh", bodies, mixture=[MIXED, named])
    savemat(sequence / "annot.mat", fields)
    for camera in mpi_inf_3dhp.CAMERAS:
        folder = sequence / f"imageFrames/video_{camera}"
        folder.mkdir(parents=True)
        for number in range(1, 6):
            (folder / f"frame_{number:06d}.jpg").write_bytes(jpeg(number))
    manifest = run("mesh", bodies, mixture=[MIXED, named])
    assert manifest["counts"]["dataset_extras/mpi_inf_3dhp_train.npz people"] == 4
    name = load_spin(bodies / "dataset_extras/mpi_inf_3dhp_train.npz").image[0]
    assert name == "S1/Seq1/imageFrames/video_0/frame_000001.jpg"
    # A frame that is only in its video.
    (bodies / "mpi_inf_3dhp" / name).unlink()
    with pytest.raises(UserError, match=f"1 of .* missing:\n  mpi_inf_3dhp/{name}"):
        run("mesh", bodies, mixture=[MIXED, named])
    (sequence / "imageSequence").mkdir()
    video = cv2.VideoWriter(str(sequence / "imageSequence/video_0.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    video.write(np.full((48, 64, 3), 90, np.uint8))
    video.release()
    run_jobs_here(monkeypatch)
    run("mesh", bodies, mixture=[MIXED, named])
    assert cv2.imread(str(bodies / "mpi_inf_3dhp" / name)).shape == (48, 64, 3)


def test_lines_of_keys(params_file: Path) -> None:
    params_file.write_text(
        "a: 1\n# comment\nb:\n  c: [1, 2]\n  d:\n    - e: 1\n      f: 2\n    - {e: 3,\n       f: 4}\n"
    )
    lines = {"a": 1, "b": 3, "b.c": 4, "b.c.1": 4, "b.d": 5, "b.d.0": 6, "b.d.0.f": 7, "b.d.1": 8, "b.d.1.f": 9}
    assert {key: line_of(key, params_file) for key in lines} == lines
    assert line_of("b.d.2.e", params_file) == 5 and line_of("b.x.y", params_file) == 3, "of the nearest section"
    assert line_of("x", params_file) == 1


@pytest.mark.parametrize("recipe", ["sample", "paper"])
def test_sources_have_the_lines_of_their_parameters(
    monkeypatch: pytest.MonkeyPatch, recipe: str, tmp_path: Path
) -> None:
    path = ROOT / "params.yaml"
    monkeypatch.setattr(survey, "PARAMS", path)
    params = load_params(path)
    chosen = params.active.data.model_copy(
        update={"mesh": params.active.data.mesh.model_copy(update={"root": str(tmp_path)})}
    )
    changed = getattr(params, recipe).model_copy(update={"data": chosen})
    downloads = survey.find_downloads("mesh", params.model_copy(update={"recipe": recipe, recipe: changed}))
    lines = path.read_text().split("\n")
    assert {source.optional for source in downloads.sources} == {True, False}
    for source in downloads.sources:
        line = int(downloads.place_of(source).removeprefix("params.yaml:"))
        assert any(source.annotations in text for text in lines[line - 1 : line + 2])


# What every task's dataset is made of


def make_upper(original: Path, target: Path) -> None:
    target.write_text(original.read_text().upper())


class Toy(OfficialDataset):
    """A dataset that uses each part of the interface."""

    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        return [RequiredPath("toy/list.txt"), RequiredPath("toy/made.txt")]

    def find_original(self, root: Path, required: RequiredPath, in_archive: bool) -> Original | None:
        packed = (root / "toy.zip").exists() and not (root / "toy").exists()
        assert in_archive == packed, "an archive may hold the file until it is unpacked"
        path = root / "made.raw"
        return Original(path, make_upper) if required.path == "toy/made.txt" and path.exists() else None

    def remaining_jobs(self, root: Path, sources: Sequence[Source]) -> list[Callable[[], None]]:
        names = (root / "toy/list.txt").read_text().split()
        return [partial(write_text, root / "toy" / name, name) for name in names if not (root / "toy" / name).exists()]

    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        inventory = Inventory(root)
        inventory.add_images(root / "toy", (root / "toy/list.txt").read_text().split())
        inventory.add_file(root / "toy/made.txt")
        inventory.counts["images"] = 2
        return inventory


def write_text(path: Path, text: str) -> None:
    path.write_text(text)


def sort_list(archive: Path, folder: Path) -> None:
    path = folder / "toy/list.txt"
    path.write_text("\n".join(sorted(path.read_text().split())))


def test_a_new_dataset_needs_only_its_description(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(name="toy.zip", unpacks_to="toy", finish=sort_list)
    origin = Origin(title="Toy", page="https://example.org", licence="CC0", prefixes=("toy",), archives=(archive,))
    toy = Toy(origins=(origin,), published_counts={"images": 2})
    monkeypatch.setattr(TASKS["face"].part("official"), "OFFICIAL", toy)
    with pytest.raises(UserError, match=r"toy/list.txt\n  toy/made.txt\nToy: download from https://example.org .*CC0"):
        run("face", root)
    (root / "toy.zip").write_bytes(zip_of({"toy/list.txt": b"b.txt a.txt", "readme.txt": b"x"}))
    (root / "made.raw").write_text("made")
    run_jobs_here(monkeypatch)
    manifest = run("face", root)
    assert manifest["counts"] == {"images": 2} and set(manifest["identities"]) == {"toy", "toy/made.txt"}
    texts = {path.name: path.read_text() for path in (root / "toy").iterdir()}
    assert texts == {"list.txt": "a.txt\nb.txt", "made.txt": "MADE", "a.txt": "a.txt", "b.txt": "b.txt"}


def run_jobs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of `prepare` in this process, without Ray."""
    monkeypatch.setattr(mapping, "session", lambda cluster: nullcontext())
    monkeypatch.setattr(mapping, "parallel_map", lambda function, items, **options: list(map(function, items)))


def test_a_task_without_an_official_dataset_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, params_file: Path
) -> None:
    monkeypatch.setattr(TASKS["face"].part("official"), "OFFICIAL", None)
    params = parameters("face", root)
    line = line_of("sample.data.face.source", params_file)
    expected = (
        f"params.yaml:{line}: sample.data.face.source is official, but the task face has no official dataset: expected "
        f"generated; set source: generated"
    )
    with pytest.raises(UserError) as caught:
        prepare("face", params, root.parent / "out")
    assert str(caught.value) == expected
    assert check("face", params) == [Finding("missing", "data root", expected)]


@pytest.mark.parametrize("task", TASKS)
def test_archives_travel_to_workers(task: str) -> None:
    for origin in TASKS[task].part("official").OFFICIAL.origins:
        assert pickle.loads(pickle.dumps(origin)) == origin


# Generated data


def generate_one_image(out: Path, options: Any, map: Callable[..., list[Any]]) -> None:
    (out / "WFLW_images").mkdir()
    list(map(partial(write_text, out / "WFLW_images/a.jpg"), ["abc"]))


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters of generated faces; the generator writes one file in this process."""
    monkeypatch.setattr(TASKS["face"].part("generate"), "generate", generate_one_image)
    monkeypatch.setattr(preparing, "session", lambda cluster: nullcontext())
    monkeypatch.setattr(preparing, "parallel_map", lambda function, items, **options: list(map(function, items)))
    return parameters("face", None, source="generated")


def test_manifests_of_generated_data_keep_their_form(tmp_path: Path, generated: Params) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/older.jpg").touch()
    prepare("face", generated, tmp_path / "out")
    abc = hashlib.sha256(b"abc").hexdigest()
    digest = hashlib.sha256(json.dumps({"WFLW_images/a.jpg": abc}, separators=(",", ":")).encode()).hexdigest()
    assert (tmp_path / "out" / MANIFEST).read_text() == (
        f'{{\n "task": "face",\n "source": "generated",\n "root": null,\n "sha256": "{digest}",\n "files": 1\n}}'
    )
    assert check("face", generated) == [Finding("ready", "generated images", "no downloads needed")]


def test_generated_data_need_their_options(tmp_path: Path, params_file: Path) -> None:
    params = parameters("face", None, source="generated")
    face = params.sample.data_of("face").model_copy(update={"generate": None})
    data = params.active.data.model_copy(update={"face": face})
    changed = params.model_copy(update={"sample": params.sample.model_copy(update={"data": data})})
    line = line_of("sample.data.face.generate", params_file)
    with pytest.raises(
        UserError, match=rf"params.yaml:{line}: sample.data.face.generate is null: expected the options"
    ):
        prepare("face", changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --check, and several archives at a time


def states(rows: list[Finding]) -> dict[str, str]:
    return {row.subject: row.state for row in rows}


@pytest.mark.slow
def test_check_reports_and_writes_nothing(face: Path) -> None:
    before = sorted(face.parent.rglob("*"))
    rows = check("face", parameters("face", face))
    assert set(states(rows).values()) == {"ready"} and len(rows) == 5
    (face / "WFLW_images.tar.gz").write_bytes(b"damaged")
    assert states(check("face", parameters("face", face)))["WFLW_images.tar.gz"] == "wrong"
    (face / "WFLW_images.tar.gz").unlink()
    rows = check("face", parameters("face", face))
    assert states(rows)["WFLW_images"] == "missing" and "wywu.github.io" in rows[-1].detail
    assert sorted(face.parent.rglob("*")) == [path for path in before if path.name != "WFLW_images.tar.gz"]
    assert states(check("face", parameters("face", None))) == {"data root": "missing"}


@pytest.mark.slow
def test_check_reports_too_small_a_disk(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(face)._replace(free=1000)
    monkeypatch.setattr("pipelines.datasets.archives.shutil.disk_usage", lambda path: usage)
    assert [row.subject for row in check("face", parameters("face", face)) if not row.is_good] == ["disk"]


def test_check_counts_what_is_complete(face: Path) -> None:
    run("face", face)
    rows = check("face", parameters("face", face))
    assert all(row.is_good for row in rows)
    assert Finding("present", "train faces", "2") in rows and [row.state for row in rows].count("warning") == 2
    (face / "WFLW_images/0--Parade/1.jpg").unlink()
    assert [row.subject for row in check("face", parameters("face", face)) if not row.is_good] == ["images"]


@pytest.mark.parametrize(("root_given", "status"), [(True, 0), (False, 1)])
def test_the_stage_prints_a_table_and_exits(
    face: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root_given: bool, status: int
) -> None:
    params = parameters("face", face if root_given else None)
    monkeypatch.setattr(stage, "load_params", lambda path: params)
    monkeypatch.setattr(sys, "argv", ["prepare", "--check"])
    assert stage.main() == status
    printed = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in printed} >= {"imagenet", "wholebody", "face", "mesh"}
    assert any("ready" in line and "WFLW_images" in line for line in printed) == root_given
    monkeypatch.setattr(sys, "argv", ["prepare"])
    with pytest.raises(SystemExit):
        stage.main()


@pytest.mark.slow
@pytest.mark.pipeline
def test_several_archives_are_unpacked_through_ray(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped: list[int] = []

    def parallel_map(function: Callable[[Any], Any], items: list[Any], *, wait_limit: float) -> list[Any]:
        mapped.append(len(items))
        return unpacking_map(function, items, wait_limit=wait_limit)

    unpacking_map = mapping.parallel_map
    monkeypatch.setattr(mapping, "parallel_map", parallel_map)
    monkeypatch.setattr(unpacking, "LEAST_BYTES_FOR_RAY", 0)
    run("face", face)
    assert mapped == [2, 2]
    assert (face / "WFLW_images/0--Parade/0.jpg").read_bytes() == jpeg(0)


def test_the_page_on_data_knows_every_publisher_and_archive() -> None:
    page = (ROOT / "docs/data.md").read_text()
    for task in TASKS.values():
        for origin in task.part("official").OFFICIAL.origins:
            assert f"| {origin.page} | {origin.licence} |" in page, origin.title
            for archive in origin.archives:
                assert f"`{archive.name}`" in page, archive.name
