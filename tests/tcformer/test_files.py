"""Files are written completely or not at all; temporary folders are this user's alone."""

import hashlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tcformer.errors import UserError
from tcformer.files import atomic_write, private_folder, sha256_of_file, temporary_folder


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


def test_a_temporary_folder_is_this_users_alone(tmp_path: Path) -> None:
    folder = temporary_folder("data", str(tmp_path))
    assert folder == temporary_folder("data", str(tmp_path)) and folder.is_dir()
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700 and folder.parent.parent == tmp_path


def make_link(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


def make_open(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize(
    ("make", "message"),
    [(make_link, "is a link"), (Path.touch, "is no folder"), (make_open, r"can be used by other users \(mode 777\)")],
)
def test_a_temporary_folder_that_somebody_else_could_have_made_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / f"tcformer-{os.getuid()}"
    make(path)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))} {message}: expected .*TMPDIR"):
        temporary_folder("data", str(tmp_path))


def test_a_temporary_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "private"
    path.mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(UserError, match=rf"belongs to another user \(number {owner}\)"):
        private_folder(path)


def test_a_temporary_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be made \(Not a directory\).*TMPDIR"):
        temporary_folder("data", str(tmp_path / "file"))


def test_numba_gets_a_cache_where_it_has_none(tmp_path: Path) -> None:
    """numba refuses to be imported if neither the code's folder nor the user's cache can be written."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/__pycache__").touch()  # no folder: also root cannot write in it
    (tmp_path / "code/compiled.py").write_text("import numba\n\n@numba.njit(cache=True)\ndef f(x):\n    return x + 1\n")
    program = (
        "import os, sys; from pathlib import Path; from tcformer.files import give_numba_a_cache\n"
        "if sys.argv[2] == 'mended': give_numba_a_cache(Path(sys.argv[1]))\n"
        "sys.path.insert(0, sys.argv[1]); import compiled; print(compiled.f(1), os.environ.get('NUMBA_CACHE_DIR'))"
    )
    environment = {**os.environ, "HOME": str(tmp_path / "code/compiled.py"), "TMPDIR": str(tmp_path)}
    environment = {name: v for name, v in environment.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    for how in ("mended", "as it was"):
        command = [sys.executable, "-c", program, str(tmp_path / "code"), how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if how == "mended":
            assert done.stdout.split() == ["2", str(tmp_path / f"tcformer-{os.getuid()}" / "numba")], done.stderr
        else:
            assert "no locator available" in done.stderr
