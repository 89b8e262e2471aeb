import io
import multiprocessing
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcformer.data.imagenet.class_archives import (
    index_file,
    read_index,
    scan,
    sort_validation,
    validation_classes,
    write_index,
)
from tcformer.data.imagenet.dataset import ImageAugmentation, ImageFolderDataset, find_classes
from tcformer.data.images import ImageError
from tcformer.errors import UserError

STRONG = ImageAugmentation(
    crop_area=(0.1, 1.0),
    crop_aspect=(0.75, 4 / 3),
    flip_probability=0.5,
    rand_augment=9.0,
    rand_augment_std=0.5,
    color_jitter=0.4,
    random_erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    cutmix_probability=0.5,
    label_smoothing=0.1,
)


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((50, 40)).save(stream, "JPEG")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, count in (("train", 5), ("val", 2)):
        for label, wnid in enumerate(("n00000002", "n00000001", "n00000010")):
            folder = tmp_path / "folders" / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{wnid}_{(7 * i) % 11}.JPEG").write_bytes(jpeg(100 * label + i))
            (folder / "notes.txt").write_text("no image")
    return tmp_path / "folders"


def as_tars(folders: Path, target: Path, indexed: bool = True) -> Path:
    for folder in sorted(folders.glob("*/*")):
        path = target / folder.parent.name / f"{folder.name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        files = sorted(folder.iterdir(), reverse=True)  # an order of its own
        write_tar(path, {file.name: file.read_bytes() for file in files})
        if indexed:
            write_index(path)
    return target


def samples_of(root: Path, classes: int, split: Any = "train") -> list[dict[str, Any]]:
    data = ImageFolderDataset(
        root, split, find_classes(root, num_classes=classes), size=32, crop_fraction=0.875, augmentation=STRONG
    )
    plain = [data.sample(i, None) for i in range(len(data))]
    return plain + [data.sample(i, np.random.default_rng(i)) for i in range(len(data))]


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a) for a, b in zip(first, second)
    )


@pytest.mark.parametrize("indexed", [True, False])
def test_tars_give_the_samples_of_folders(folders: Path, tmp_path: Path, indexed: bool) -> None:
    tars = as_tars(folders, tmp_path / "tars", indexed)
    assert index_file(tars / "train/n00000001.tar").exists() == indexed
    assert (
        find_classes(tars, num_classes=3)
        == find_classes(folders, num_classes=3)
        == ["n00000001", "n00000002", "n00000010"]
    )
    for split in ("train", "val"):
        assert same(samples_of(folders, 3, split), samples_of(tars, 3, split))
    assert not same(samples_of(folders, 3, "train"), samples_of(tars, 3, "val"))


@pytest.mark.slow
def test_tars_give_the_samples_of_real_folders(samples: Path, tmp_path: Path) -> None:
    real = samples / "imagenet"
    tars = as_tars(real, tmp_path)
    assert same(samples_of(real, 120, "val"), samples_of(tars, 120, "val"))


def test_folders_and_tars_may_be_mixed(folders: Path, tmp_path: Path) -> None:
    expected = samples_of(folders, 3)
    tars = as_tars(folders, tmp_path / "tars")
    (folders / "train/n00000002").rename(tmp_path / "gone")
    (tars / "train/n00000002.tar").rename(folders / "train/n00000002.tar")
    assert same(samples_of(folders, 3), expected)


def read_all(data: ImageFolderDataset) -> list[bytes]:
    return [data.read(i).tobytes() for i in range(len(data))]


def test_tars_are_read_in_other_processes(folders: Path, tmp_path: Path) -> None:
    tars = as_tars(folders, tmp_path / "tars")
    data = ImageFolderDataset(tars, "train", find_classes(tars, num_classes=3), size=32, crop_fraction=0.875)
    expected = read_all(data)  # whatever reading opens is open now
    assert read_all(pickle.loads(pickle.dumps(data))) == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_all, [data] * 4, chunksize=1) == [expected] * 4


def test_a_changed_tar_is_read_without_its_old_index(tmp_path: Path) -> None:
    path = tmp_path / "n00000001.tar"
    write_tar(path, {"a.JPEG": jpeg(0)})
    assert write_index(path) == 1
    write_tar(path, {"a.JPEG": jpeg(0), "b.JPEG": b"x" * 20_000})
    assert [member.name for member in read_index(path)] == ["a.JPEG", "b.JPEG"]
    index_file(path).write_text("{}")
    assert read_index(path) == scan(path)


def test_a_truncated_tar_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "train/n00000001.tar"
    path.parent.mkdir()
    write_tar(path, {"a.JPEG": jpeg(0), "b.JPEG": jpeg(1) * 20})
    data = ImageFolderDataset(tmp_path, "train", ["n00000001"], size=32, crop_fraction=0.875)
    assert data.path(1) == path / "b.JPEG"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="uncompressed tar"):
        scan(path)
    with pytest.raises(ImageError, match=r"n00000001.tar/b.JPEG: cannot be read .* put the tar back"):
        data.read(1)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match="cannot be read as an uncompressed tar"):
        read_index(path)


def test_a_tar_with_folders_or_links_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"folder/a.JPEG": b""})
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        info = tarfile.TarInfo("a.JPEG")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    for name in ("a.tar", "b.tar"):
        with pytest.raises(UserError, match="expected plain files without folders"):
            scan(tmp_path / name)


def devkit(folder: Path, wnid_of_id: dict[int, str], truth: list[int]) -> Path:
    """A devkit; the first synset is a group of classes, which counts for nothing."""
    from scipy.io import savemat

    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [*((number, wnid, "words", 0) for number, wnid in wnid_of_id.items()), (1001, "n99999999", "entity", 2)]
    (folder / "data").mkdir(parents=True)
    savemat(folder / "data/meta.mat", {"synsets": np.array(rows, fields).reshape(-1, 1)})
    lines = "".join(f"{number}\n" for number in truth)
    (folder / "data/ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    return folder


def test_validation_images_go_to_the_classes_that_the_devkit_says(tmp_path: Path) -> None:
    ids = {1: "n00000010", 2: "n00000001", 3: "n00000002"}  # not the order of the sorted wnids
    classes = validation_classes(devkit(tmp_path / "devkit", ids, [3, 1, 1, 2]))
    assert classes == ["n00000002", "n00000010", "n00000010", "n00000001"]
    images = {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(number) for number in (4, 2, 1, 3)}
    write_tar(tmp_path / "val.tar", images)
    done: list[int] = []
    for target in (tmp_path / "first", tmp_path / "second"):
        target.mkdir()
        sort_validation(tmp_path / "val.tar", classes, target, done.append)
    assert sum(done) == 2 * sum(len(data) for data in images.values())
    found = {}
    for path in sorted((tmp_path / "first").glob("*.tar")):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
        with tarfile.open(path) as tar:
            found[path.stem] = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert {wnid: list(names) for wnid, names in found.items()} == {
        "n00000001": ["ILSVRC2012_val_00000004.JPEG"],
        "n00000002": ["ILSVRC2012_val_00000001.JPEG"],
        "n00000010": ["ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000003.JPEG"],
    }
    assert {name: data for names in found.values() for name, data in names.items()} == images


def test_a_wrong_validation_archive_or_devkit_is_reported(tmp_path: Path) -> None:
    folder = devkit(tmp_path / "devkit", {1: "n00000001"}, [1, 2])
    with pytest.raises(UserError, match=r"ground_truth.txt: expected a line with an ILSVRC2012_ID .* found 2"):
        validation_classes(folder)
    (folder / "data/meta.mat").write_bytes(b"no mat")
    with pytest.raises(UserError, match=r"meta.mat: cannot be read as ImageNet's synsets"):
        validation_classes(folder)
    for name in ("ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000000.JPEG", "photo.JPEG"):
        write_tar(tmp_path / "val.tar", {name: b""})
        with pytest.raises(UserError, match=rf"{name}'.* expected ILSVRC2012_val_00000001.JPEG to"):
            sort_validation(tmp_path / "val.tar", ["n00000001"], tmp_path)
