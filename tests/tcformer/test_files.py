"""Files are written completely or not at all."""

import hashlib
from pathlib import Path

import pytest

from tcformer.files import atomic_write, sha256_of_file


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new folder/a.npz"
    with atomic_write(path, durable=durable) as part:
        assert part.parent == path.parent and part.suffix == ".npz" and not path.exists()
        part.write_bytes(b"first")
    assert path.read_bytes() == b"first"
    with pytest.raises(KeyError), atomic_write(path, durable=durable) as part:
        part.write_bytes(b"second")
        raise KeyError
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"some bytes")
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(b"some bytes").hexdigest()
