"""Stores: a key holds a whole file or none, on this machine's disk and behind an address."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pipelines.adapters.storage import Store
from tcformer.errors import UserError


@pytest.fixture(params=["folder", "address"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A local folder, or the same behind a file:// address, which goes the way of s3:// and gs:// ones."""
    root = tmp_path / "store"
    return Store(str(root) if request.param == "folder" else f"file://{root}")


def test_files_come_back_as_they_were_put(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)))
    store.put(tmp_path / "source", "a/b/file")
    store.write("a/note", b"text")
    assert store.read("a/note") == b"text" and store.read("a/none") is None
    assert store.fetch("a/b/file", tmp_path / "copy").read_bytes() == bytes(range(256))
    assert store.folders() == ["a"]
    store.write("a/note", b"another")
    assert store.read("a/note") == b"another"
    store.delete("a")
    store.delete("a")
    assert store.folders() == [] and store.read("a/note") is None
    with pytest.raises(FileNotFoundError):
        store.fetch("a/b/file", tmp_path / "copy")


class _Breaks(io.BytesIO):
    """A source that fails after its first half, as a disk does."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(4)


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_interrupted_write_leaves_what_was_there(store: Store, before: bytes | None, tmp_path: Path) -> None:
    if before is not None:
        store.write("folder/key", before)
    with pytest.raises(OSError, match="Input/output error"):
        store._write("folder/key", _Breaks(b"new content"))
    assert store.read("folder/key") == before
    left = [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert left == ([] if before is None else ["key"])


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("az://bucket/x", "expected a folder, or an address s3://bucket/folder"),
        ("S3://bucket/x", "did you mean s3://bucket/x"),
        ("s3:/bucket/x", "did you mean s3://bucket/x"),
        ("GS://bucket/x", "did you mean gs://bucket/x"),
        ("s3://my bucket/x", "Cannot parse URI"),
        ("s3://", "expected a folder"),
        ("http://host/x", "expected a folder"),
        ("file://host/x", "expected a folder"),
        ("", "expected a folder"),
        ("a\0b", "expected a folder"),
    ],
)
def test_an_address_of_a_wrong_form_is_named(root: str, expected: str) -> None:
    with pytest.raises(UserError, match=r"cluster\.storage is ") as caught:
        Store(root)
    assert expected in str(caught.value)


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_a_place_that_cannot_be_used_is_named(address: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("/proc/nowhere", tmp_path / "file/x"):
        store = Store(address.format(place))
        with pytest.raises(UserError, match=r"cluster\.storage .* cannot be written to \("):
            store.write("key", b"x")
    (tmp_path / "store/key").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cluster\.storage .* cannot be read \("):
        Store(address.format(tmp_path / "store")).read("key")


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/store").write("key", b"x")
    assert (tmp_path / "store/key").read_bytes() == b"x" and Store("~/store").root == str(tmp_path / "store")
