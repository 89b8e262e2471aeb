"""Official downloads: tiny archives in the publishers' layouts, prepared, interrupted, damaged, incomplete."""

import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipelines.datasets import catalogue, unpacking
from pipelines.datasets.archives import md5_of_file
from pipelines.datasets.catalogue import ORIGINS, Archive, Source, mesh_sources
from pipelines.datasets.downloads import Row, check
from pipelines.datasets.prepared import MANIFEST, Prepared, prepare
from pipelines.params import Cluster, DataSource, load_params
from stages import prepare as stage
from tcformer.body.files import SmplArrays, load_smpl, save_smpl_pickle
from tcformer.data.imagenet.dataset import ImageFolderDataset, find_classes
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.mesh.files import load_spin
from tcformer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "../shared/samples"
CLUSTER = Cluster(address=None, workers=2, cpus_per_worker=1, loader_processes=0, max_failures=0, storage=None)

real = pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of the real data sets are not here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where downloads lie; people have spaces in their paths."""
    (tmp_path / "my data").mkdir()
    return tmp_path / "my data"


def section(root: Path | None) -> DataSource[Any]:
    return DataSource(source="official", root=None if root is None else str(root), generate=None)


def run(task: str, root: Path | None, out: str = "out", sources: Any = ()) -> dict[str, Any]:
    folder = (root or Path("nowhere")).parent / out
    prepare(task, section(root), CLUSTER, folder, sources)
    return dict(json.loads((folder / MANIFEST).read_text()))


def tree(root: Path) -> dict[str, str]:
    """Everything below a folder but our own notes."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and unpacking.WORK not in path.parts)
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


def publish(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Have the catalogue hold the checksums of the archives in `root`, in place of those of the whole data sets."""
    changed = {}
    for task, origins in ORIGINS.items():
        changed[task] = tuple(
            catalogue.Origin(**{**vars(origin), "archives": tuple(republished(root, a) for a in origin.archives)})
            for origin in origins
        )
    monkeypatch.setattr(catalogue, "ORIGINS", changed)


def republished(root: Path, archive: Archive) -> Archive:
    path = root / archive.name
    md5 = md5_of_file(path) if archive.md5 and path.exists() else archive.md5
    return Archive(**{**vars(archive), "md5": md5})


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
    publish(monkeypatch, root)
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


def test_a_second_run_is_the_same_and_reads_no_archive(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("imagenet", imagenet)
    before = tree(imagenet)
    monkeypatch.setattr(unpacking, "_examine", None)
    monkeypatch.setattr(unpacking, "_unpack", None)
    assert run("imagenet", imagenet) == first and tree(imagenet) == before
    assert (imagenet.parent / "out" / MANIFEST).read_text() == json.dumps(first, indent=1)


def test_the_devkit_is_needed_only_for_the_archive(imagenet: Path) -> None:
    (imagenet / "ILSVRC2012_devkit_t12.tar.gz").rename(imagenet / "away")
    with pytest.raises(UserError, match=r"lacks 1 of the .*\n  ILSVRC2012_devkit_t12\n.*image-net.org"):
        run("imagenet", imagenet)
    assert not (imagenet / "train").exists(), "missing files are told before anything starts"
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
    with pytest.raises(UserError) as told:
        run("imagenet", imagenet)
    message = str(told.value)
    assert f"{path}: expected the published MD5 {expected}, got {md5_of_file(path)}" in message
    assert "delete it and fetch it again" in message and "\n" not in message
    assert tree(imagenet) == before and not (imagenet.parent / "out").exists()


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
    assert all(row.good for row in check("imagenet", section(imagenet))) and len(computed) == 3
    os.utime(imagenet / "ILSVRC2012_img_train.tar", (1, 1))
    with pytest.raises(UserError, match="stopped"):
        run("imagenet", imagenet)
    assert computed[3:] == ["ILSVRC2012_img_train.tar"]
    # One wrong archive does not make the others be read again.
    (imagenet / "ILSVRC2012_img_val.tar").write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(UserError, match="expected the published MD5"):
            run("imagenet", imagenet)
    assert computed[4:] == ["ILSVRC2012_img_val.tar"]


def test_an_outer_tar_of_other_things_is_refused(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for files, reason in (
        (
            {"n00000001.tar": tar_of({"a/b.JPEG": b"x"})},
            "ILSVRC2012_img_train.tar, in it n00000001.tar: .* without folders",
        ),
        ({"../n00000001.tar": b""}, "a path out of the target"),
        ({"photo.JPEG": b"x"}, "expected class tars like n01440764.tar"),
    ):
        (imagenet / "ILSVRC2012_img_train.tar").write_bytes(tar_of(files))
        publish(monkeypatch, imagenet)
        with pytest.raises(UserError, match=reason):
            run("imagenet", imagenet)
        assert not (imagenet / "train").exists() and not list((imagenet / unpacking.WORK).rglob("*.tar"))


def test_folders_without_images_are_told(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "n00000001").mkdir(parents=True)
    with pytest.raises(UserError, match=r"lacks 2 .*\n  train \(it holds no class folders or class tars with images"):
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
    assert "warning" in printed and "2 train faces, 7500 are published" in printed
    assert sorted(path.name for path in face.iterdir() if path.is_dir()) == [
        unpacking.WORK,
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


def test_missing_images_are_told(face: Path) -> None:
    run("face", face)
    (face / "WFLW_images/0--Parade/1.jpg").unlink()
    (face / "WFLW_images/0--Parade/2.jpg").write_bytes(b"")
    with pytest.raises(UserError) as told:
        run("face", face)
    message = str(told.value)
    assert "lacks 2 of the files" in message and "WFLW_images/0--Parade/1.jpg\n" in message
    assert "WFLW_images/0--Parade/2.jpg (it is empty)" in message and "wywu.github.io" in message
    assert f"WFLW_images.tar.gz is there: remove {face / 'WFLW_images'} to have it unpacked again" in message
    assert "WFLW_annotations.tar.gz is there" not in message


def test_a_folder_that_lacks_something_is_not_written_over(face: Path) -> None:
    (face / "WFLW_annotations").mkdir()
    (face / "WFLW_annotations/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"WFLW_annotations.tar.gz is there: remove .*WFLW_annotations to have"):
        run("face", face)
    assert [path.name for path in (face / "WFLW_annotations").iterdir()] == ["notes.txt"]


def test_a_killed_run_goes_on_with_the_archives_that_are_left(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = face.parent / "whole"
    shutil.copytree(face, whole)
    run("face", whole)
    place = unpacking._place
    done: list[str] = []

    def killed_at_the_second(part: Path, target: Path) -> None:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(target.name)
        place(part, target)

    monkeypatch.setattr(unpacking, "_place", killed_at_the_second)
    process = multiprocessing.get_context("fork").Process(target=run, args=("face", face))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finished, left = sorted(("WFLW_annotations", "WFLW_images"), key=lambda name: not (face / name).exists())
    assert (face / finished).exists() and not (face / left).exists()
    assert (face / unpacking.WORK / "parts" / f"{left}.tar.gz").exists(), "what it was about to rename"
    monkeypatch.setattr(unpacking, "_place", place)
    kept = (face / finished).stat().st_ino
    run("face", face)
    assert (face / finished).stat().st_ino == kept, "it was not unpacked again"
    assert tree(face) == tree(whole) and not (face / unpacking.WORK / "parts").exists()


def test_too_small_a_disk_is_told_before_anything_is_unpacked(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(face)._replace(free=1000)
    monkeypatch.setattr("pipelines.datasets.archives.shutil.disk_usage", lambda path: usage)
    before = tree(face)
    with pytest.raises(UserError, match=r"unpacking needs \d+ bytes .* 1000 are free"):
        run("face", face)
    assert tree(face) == before


def test_an_evil_archive_stops_before_the_good_ones_are_unpacked(face: Path) -> None:
    (face / "WFLW_images.tar.gz").write_bytes(tar_of({"WFLW_images/../../evil.jpg": b"x"}, "w:gz"))
    before = tree(face.parent)
    with pytest.raises(UserError, match="a path out of the target"):
        run("face", face)
    assert tree(face.parent) == before
    (face / "WFLW_images.tar.gz").write_bytes(tar_of({}, "w:gz"))
    with pytest.raises(UserError, match="holds no files"):
        run("face", face)


def test_two_processes_do_not_unpack_at_once(face: Path) -> None:
    import fcntl

    (face / unpacking.WORK).mkdir()
    with (face / unpacking.WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process unpacks archives there"):
            run("face", face)


# COCO-WholeBody


@real
def test_wholebody_from_zips_and_loose_annotations(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SAMPLES / "coco_wholebody"
    images = {path.name: path.read_bytes() for path in (source / "val2017").glob("*.jpg")}
    annotations = (source / "annotations/coco_wholebody_val_v1.0.json").read_bytes()
    for split in ("train", "val"):
        (root / f"{split}2017.zip").write_bytes(zip_of({f"{split}2017/{name}": data for name, data in images.items()}))
        (root / f"coco_wholebody_{split}_v1.0.json").write_bytes(annotations)
    detections = "person_detection_results/COCO_val2017_detections_AP_H_56_person.json"
    (root / detections).parent.mkdir()
    shutil.copy(source / detections, root / detections)  # a mixture: this one lies in its place
    with pytest.raises(UserError, match="expected the published MD5 cced6f7f71b7629ddf16f17bbcfab6b2"):
        run("wholebody", root)
    publish(monkeypatch, root)
    manifest = run("wholebody", root)
    assert manifest["counts"] == {
        "train2017 images": 5, "train people": 26, "val2017 images": 5, "val people": 26
    }  # fmt: skip
    assert (root / "annotations/coco_wholebody_val_v1.0.json").read_bytes() == annotations
    assert (root / "train2017/000000000785.jpg").read_bytes() == images["000000000785.jpg"]
    assert [row for row in check("wholebody", section(root)) if not row.good] == []
    (root / "annotations/coco_wholebody_val_v1.0.json").write_bytes(annotations[:1000])
    assert [row.state for row in check("wholebody", section(root)) if not row.good] == ["wrong"]


def test_what_is_missing_is_told_with_its_origin(root: Path) -> None:
    (root / "val2017").mkdir()
    (root / "val2017/000000000001.jpg").touch()
    with pytest.raises(UserError) as told:
        run("wholebody", root)
    lines = str(told.value).split("\n")
    assert lines[0] == f"{root} lacks 4 of the files and folders that the task wholebody needs:"
    assert lines[1:5] == [
        "  annotations/coco_wholebody_train_v1.0.json",
        "  annotations/coco_wholebody_val_v1.0.json",
        "  person_detection_results/COCO_val2017_detections_AP_H_56_person.json",
        "  train2017",
    ]
    assert "github.com/jin-s13/COCO-WholeBody (licence: non-commercial research)" in lines[5]
    assert "put train2017.zip, val2017.zip, or what they unpack to, in" in lines[7]
    assert not (root.parent / "out").exists() and [path.name for path in root.iterdir()] == ["val2017"]


def test_a_root_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"data.face.root is null: give the folder .* WFLW_images \(docs/data.md\)"):
        prepare("face", section(None), CLUSTER, Path("nowhere"))
    with pytest.raises(UserError, match=r"data.face.root: /no/such/folder is no folder"):
        prepare("face", section(Path("/no/such/folder")), CLUSTER, Path("nowhere"))


# Bodies


def source(annotations: str, images: str, line: int = 7, mixture: bool = True) -> Source:
    return Source(annotations, images, f"params.yaml:{line}", mixture, gendered=not mixture)


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
    (root / "pictures").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / "pictures" / name).write_bytes(jpeg(0))
    return root


MIXED = source("dataset_extras/one.npz", "pictures")
TESTED = source("dataset_extras/one.npz", "pictures", 9, mixture=False)


def test_body_models_are_unpacked_and_converted_once(bodies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = run("mesh", bodies, sources=[MIXED, TESTED])
    for gender in ("NEUTRAL", "MALE", "FEMALE"):
        model = load_smpl(bodies / f"body/SMPL_{gender}.npz")
        assert np.array_equal(model.v_template, small_model().v_template)
        assert f"body/SMPL_{gender}.npz" in manifest["identities"]
    assert (bodies / "body/J_regressor_h36m.npy").read_bytes() == b"h36m"
    assert manifest["counts"] == {"dataset_extras/one.npz people": 2}
    monkeypatch.setattr("pipelines.datasets.downloads.convert_smpl", None)
    assert run("mesh", bodies, sources=[MIXED, TESTED]) == manifest


def test_human36m_is_known_not_to_be_among_spins_files(bodies: Path) -> None:
    shutil.move(bodies / "dataset_extras", bodies / "away")
    (bodies / "dataset_extras.tar.gz").write_bytes(tar_of({"dataset_extras/one.npz": b""}, "w:gz"))
    with pytest.raises(UserError, match=r"lacks 1 of .*\n  dataset_extras/h36m_train.npz .*\n.*vision.imar.ro"):
        run("mesh", bodies, sources=[MIXED, source("dataset_extras/h36m_train.npz", "pictures")])
    assert not (bodies / "dataset_extras").exists()


def test_a_malicious_model_is_refused(bodies: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch '{bodies}/executed'",)

    (bodies / "body/SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="refused, because it names"):
        run("mesh", bodies, sources=[MIXED])
    assert not (bodies / "executed").exists() and not list((bodies / "body").glob("*.npz"))


def test_absent_sources_are_told_with_the_line_to_remove(bodies: Path) -> None:
    absent = [source(f"eft_fit/{i}.json", f"coco/{i}", 10 + i) for i in range(6)]
    absent.append(source("3DPW/sequenceFiles/test", "3DPW/imageFiles", 99, mixture=False))
    with pytest.raises(UserError) as told:
        run("mesh", bodies, sources=[MIXED, *absent])
    message = str(told.value)
    assert "lacks 14 of the files" in message and "  and 4 more" in message
    assert "  eft_fit/0.json (named at params.yaml:10: remove that source to train without it)" in message
    assert "facebookresearch/eft (licence: CC BY-NC 4.0)" in message and "3DPW: from https://virtualhumans" in message
    assert not (bodies / "body/SMPL_MALE.npz").exists()
    (bodies / "pictures/a.jpg").unlink()
    with pytest.raises(UserError, match=r"pictures/a.jpg \(named at params.yaml:7: remove that source"):
        run("mesh", bodies, sources=[MIXED])


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
    named = source("dataset_extras/mpi_inf_3dhp_train.npz", "mpi_inf_3dhp")
    with pytest.raises(UserError, match=r"dataset_extras/mpi_inf_3dhp_train\.npz"):
        run("mesh", bodies, sources=[MIXED, named])
    savemat(sequence / "annot.mat", fields)
    for camera in mpi_inf_3dhp.CAMERAS:
        folder = sequence / f"imageFrames/video_{camera}"
        folder.mkdir(parents=True)
        for number in range(1, 6):
            (folder / f"frame_{number:06d}.jpg").write_bytes(jpeg(number))
    manifest = run("mesh", bodies, sources=[MIXED, named])
    assert manifest["counts"]["dataset_extras/mpi_inf_3dhp_train.npz people"] == 4
    name = load_spin(bodies / "dataset_extras/mpi_inf_3dhp_train.npz").image[0]
    assert name == "S1/Seq1/imageFrames/video_0/frame_000001.jpg"
    # A frame that is only in its video.
    (bodies / "mpi_inf_3dhp" / name).unlink()
    with pytest.raises(UserError, match=f"lacks 1 .*\n  mpi_inf_3dhp/{name}"):
        run("mesh", bodies, sources=[MIXED, named])
    (sequence / "imageSequence").mkdir()
    video = cv2.VideoWriter(str(sequence / "imageSequence/video_0.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    video.write(np.full((48, 64, 3), 90, np.uint8))
    video.release()
    monkeypatch.setattr("pipelines.datasets.downloads.session", lambda cluster: nullcontext())
    one_by_one = "pipelines.datasets.downloads.parallel_map"
    monkeypatch.setattr(one_by_one, lambda function, items, title: list(map(function, items)))
    run("mesh", bodies, sources=[MIXED, named])
    assert cv2.imread(str(bodies / "mpi_inf_3dhp" / name)).shape == (48, 64, 3)


def test_sources_know_their_lines() -> None:
    path = ROOT / "params.yaml"
    found = mesh_sources(load_params(path).active, path)
    lines = path.read_text().split("\n")
    assert {source.mixture for source in found} == {True, False}
    for source in found:
        line = int(source.named_at.removeprefix("params.yaml:"))
        assert any(source.annotations in text for text in lines[line - 1 : line + 2])


# What is generated stays as it was


def test_manifests_of_generated_data_keep_their_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(task: str, data: Any, cluster: Cluster, out: Path) -> None:
        (out / "WFLW_images").mkdir()
        (out / "WFLW_images/a.jpg").write_bytes(b"abc")

    monkeypatch.setattr("pipelines.datasets.prepared._generate", generate)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/older.jpg").touch()
    made = DataSource(source="generated", root=None, generate=None)
    prepare("face", made, CLUSTER, tmp_path / "out")
    abc = hashlib.sha256(b"abc").hexdigest()
    digest = hashlib.sha256(json.dumps({"WFLW_images/a.jpg": abc}, separators=(",", ":")).encode()).hexdigest()
    assert (tmp_path / "out" / MANIFEST).read_text() == (
        f'{{\n "task": "face",\n "source": "generated",\n "root": null,\n "sha256": "{digest}",\n "files": 1\n}}'
    )
    assert check("face", made) == [Row("ready", "generated images", "nothing to obtain")]


# --check, and several archives at a time


def states(rows: list[Row]) -> dict[str, str]:
    return {row.what: row.state for row in rows}


def test_check_tells_and_writes_nothing(face: Path) -> None:
    before = sorted(face.parent.rglob("*"))
    rows = check("face", section(face))
    assert set(states(rows).values()) == {"ready"} and len(rows) == 5
    (face / "WFLW_images.tar.gz").write_bytes(b"damaged")
    assert states(check("face", section(face)))["WFLW_images.tar.gz"] == "wrong"
    (face / "WFLW_images.tar.gz").unlink()
    rows = check("face", section(face))
    assert states(rows)["WFLW_images"] == "missing" and "wywu.github.io" in rows[-1].note
    assert sorted(face.parent.rglob("*")) == [path for path in before if path.name != "WFLW_images.tar.gz"]
    assert states(check("face", section(None))) == {"data root": "missing"}


def test_check_tells_of_too_small_a_disk(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(face)._replace(free=1000)
    monkeypatch.setattr("pipelines.datasets.archives.shutil.disk_usage", lambda path: usage)
    assert [row.what for row in check("face", section(face)) if not row.good] == ["disk"]


def test_check_counts_what_is_complete(face: Path) -> None:
    run("face", face)
    rows = check("face", section(face))
    assert all(row.good for row in rows)
    assert Row("there", "train faces", "2") in rows and [row.state for row in rows].count("warning") == 2
    (face / "WFLW_images/0--Parade/1.jpg").unlink()
    assert [row.what for row in check("face", section(face)) if not row.good] == ["images"]


@pytest.mark.parametrize(("root_given", "status"), [(True, 0), (False, 1)])
def test_the_stage_prints_a_table_and_exits(
    face: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root_given: bool, status: int
) -> None:
    params = load_params(ROOT / "params.yaml")
    data = params.active.data.model_copy(update={"face": section(face if root_given else None)})
    recipe = params.sample.model_copy(update={"data": data})
    monkeypatch.setattr(stage, "load_params", lambda path: params.model_copy(update={"sample": recipe}))
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

    def parallel_map(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        mapped.append(len(items))
        return unpacking_map(function, items)

    unpacking_map = unpacking.parallel_map
    monkeypatch.setattr(unpacking, "parallel_map", parallel_map)
    monkeypatch.setattr(unpacking, "PARALLEL_FROM", 0)
    run("face", face)
    assert mapped == [2, 2]
    assert (face / "WFLW_images/0--Parade/0.jpg").read_bytes() == jpeg(0)


def test_the_page_on_data_knows_every_publisher_and_archive() -> None:
    page = (ROOT / "docs/data.md").read_text()
    for origins in ORIGINS.values():
        for origin in origins:
            assert f"| {origin.page} | {origin.licence} |" in page, origin.title
            for archive in origin.archives:
                assert f"`{archive.name}`" in page, archive.name
