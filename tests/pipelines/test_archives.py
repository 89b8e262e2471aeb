"""Archives are unpacked whole or not at all, and never outside their target."""

import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets import archives
from pipelines.datasets.archives import Contents, check_md5, examine, extract, md5_of_file, require_space
from tcformer.errors import UserError

FILES = {"top/a.txt": b"a" * 5000, "top/deep/b.bin": random.Random(0).randbytes(300_000), "top/empty": b""}
SIZE = sum(len(data) for data in FILES.values())


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def found(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_good_archives_are_unpacked(tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, FILES)
    contents = examine(archive)
    assert contents == Contents(3, SIZE) and contents.disk_size >= SIZE
    done: list[int] = []
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()  # of a killed process
    extract(archive, contents, tmp_path / "out", done.append)
    assert found(tmp_path / "out") == FILES and sum(done) == SIZE


def test_an_archive_of_the_folder_itself_is_unpacked(tmp_path: Path) -> None:
    folders = [special(name, tarfile.DIRTYPE) for name in ("./", "./top", "./top/none")]
    archive = make_tar(tmp_path / "a.tar", {f"./{name}": data for name, data in FILES.items()}, *folders)
    extract(archive, examine(archive), tmp_path / "out")
    assert found(tmp_path / "out") == FILES and (tmp_path / "out/top/none").is_dir()


def zip_link(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, "/etc/passwd")
    return path


def sparse_tar(path: Path) -> Path:
    """A header of an old GNU sparse file of a terabyte with no data."""
    info = special("sparse", tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(bytes(header) + bytes(1024))
    return path


def lying_zip(path: Path) -> Path:
    """A zip whose table claims less than a member holds."""
    make_zip(path, {"a.txt": b"x" * 40_000})
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02") + 24
    path.write_bytes(data[:place] + (9).to_bytes(4, "little") + data[place + 4 :])
    return path


UNSAFE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "up.tar": (lambda p: make_tar(p, {"fine": b"", "a/../../up": b"x"}), "a path outside the target"),
    "up.zip": (lambda p: make_zip(p, {"fine": b"", "../up": b"x"}), "a path outside the target"),
    "absolute.tar": (lambda p: make_tar(p, {"/tmp/absolute": b"x"}), "an absolute path"),
    "absolute.tar.gz": (lambda p: make_tar(p, {"/tmp/absolute": b"x"}), "an absolute path"),
    "absolute.zip": (lambda p: make_zip(p, {"/tmp/absolute": b"x"}), "an absolute path"),
    "drive.zip": (lambda p: make_zip(p, {"C:/absolute": b"x"}), "an absolute path"),
    "backslash.zip": (lambda p: make_zip(p, {"..\\up": b"x"}), "not a valid file name"),
    "control.tar": (lambda p: make_tar(p, {"a\nb": b"x"}), "not a valid file name"),
    "link.tar": (lambda p: make_tar(p, {}, special("link", tarfile.SYMTYPE, "/etc")), "a link"),
    "hard.tar": (lambda p: make_tar(p, {"a": b"x"}, special("link", tarfile.LNKTYPE, "a")), "a link"),
    "link.zip": (zip_link, "a link"),
    "device.tar": (lambda p: make_tar(p, {}, special("device", tarfile.CHRTYPE)), "a special file"),
    "fifo.tar.gz": (lambda p: make_tar(p, {}, special("fifo", tarfile.FIFOTYPE)), "a special file"),
    "sparse.tar": (sparse_tar, "a sparse file"),
    "twice.tar": (lambda p: make_tar(p, {"a": b"x", "./a": b"y"}), "a duplicate name"),
    "bomb.zip": (lambda p: make_zip(p, {"zeros": bytes(40 << 20)}), "a decompression bomb"),
    "bomb.tar.gz": (lambda p: make_tar(p, {"zeros": bytes(40 << 20)}), "a decompression bomb"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_archives_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    make, reason = UNSAFE[name]
    archive = make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        examine(archive)
    message = str(caught.value)
    assert message.startswith(f"{archive}: ") and reason in message and "\n" not in message
    assert message.endswith("; download it again from its publisher")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError):  # even if its examination was skipped
        extract(archive, Contents(1, 1 << 20), tmp_path / "in/out")
    assert sorted(set(tmp_path.rglob("*")) - {tmp_path / "in"}) == before
    assert not Path("/tmp/absolute").exists() and not Path("/etc/passwd").is_symlink()


def test_a_bomb_of_headers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 0)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(special("folder", tarfile.DIRTYPE).tobuf() * 4000, 9))
    with pytest.raises(UserError, match="a decompression bomb"):
        examine(path)


def test_a_member_that_holds_more_than_it_claims_is_refused(tmp_path: Path) -> None:
    archive = lying_zip(tmp_path / "a.zip")
    with pytest.raises(UserError, match=r"a.zip: "):
        extract(archive, examine(archive), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archives_are_reported_in_one_sentence(tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, FILES)
    contents = examine(archive)
    data = archive.read_bytes()
    for damaged in (data[: len(data) // 2], b"no archive at all" * 100, b""):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged archive .* download it again") as caught:
            examine(archive)
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError):
            extract(archive, contents, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_flipped_byte_in_a_zip_is_found(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", FILES)
    contents = examine(archive)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match="damaged archive"):
        extract(archive, contents, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_with_the_name_of_a_folder_is_reported(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"a": b"x", "a/b": b"y"})
    with pytest.raises(UserError, match="a file and a folder in it have the same name"):
        extract(archive, examine(archive), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_that_grows_after_its_examination_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"a": b"x"})
    contents = examine(archive)
    make_tar(archive, FILES)
    with pytest.raises(UserError, match="it changed while it was unpacked"):
        extract(archive, contents, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", FILES)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(archive, examine(archive), tmp_path / "out", stop)
    assert not (tmp_path / "out").exists()


def test_too_small_a_disk_is_reported_with_the_bytes_needed(tmp_path: Path) -> None:
    require_space(tmp_path, [Contents(3, SIZE)])
    with pytest.raises(
        UserError, match=rf"bytes are free .* expected {2 * (10**17 + 4096)} .* for unpacking; free space"
    ):
        require_space(tmp_path, [Contents(1, 10**17)] * 2)


def test_a_disk_that_fills_up_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "a.tar", FILES)
    contents = examine(archive)

    def full(*ignored: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(UserError, match=rf"is full: expected {contents.disk_size} free bytes"):
        extract(archive, contents, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_checksum_names_both(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"abc")
    done: list[int] = []
    assert md5_of_file(path, done.append) == "900150983cd24fb0d6963f7d28e17f72" and done == [3]
    check_md5(path, "900150983cd24fb0d6963f7d28e17f72", md5_of_file(path))
    with pytest.raises(UserError, match=r"a.tar: the MD5 is 9001\w+: expected the published 0123, .* delete it and"):
        check_md5(path, "0123", md5_of_file(path))


def test_other_compressions_are_named(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", FILES)
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 10] = 9
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip: its member 'top/a\.txt' is compressed by Deflate64"):
        examine(archive)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@settings(max_examples=80, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_damage_is_unpacked_or_one_error(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    small = {"a.txt": b"a" * 300, "b": b"b"}
    archive = (make_zip if name.endswith("zip") else make_tar)(folder / f"damaged-{name}", small)
    whole = archive.read_bytes()
    damaged = bytearray(whole)
    headers = [i for i in range(len(whole)) if whole[i]] or [0]
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.sampled_from(headers))] = data.draw(st.integers(0, 255))
    archive.write_bytes(damaged[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    try:
        extract(archive, examine(archive), folder / "unpacked")
    except UserError as error:
        assert str(archive) in str(error)
        assert not (folder / "unpacked").exists()
    else:
        shutil.rmtree(folder / "unpacked")
