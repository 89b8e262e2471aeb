"""What `tcformer submit` sends: a commit, its changes, and a repository in which DVC and the provenance work."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from pipelines.cluster import package
from pipelines.cluster.package import ORDER, Order, checkout_key, hashes, held_outputs, sent_files, write_package
from tcformer.errors import UserError


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, a tracked file that is changed, one that is deleted, an untracked one and an ignored one."""
    root = tmp_path / "my work"
    (root / "code").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", str(root))
    for name, text in {"a.py": "1", "code/b.sh": "#!/bin/sh", "gone.txt": "x", ".gitignore": "/data/\n"}.items():
        (root / name).write_text(text)
    (root / "code/b.sh").chmod(0o755)
    for message in ("one", "two"):
        (root / "history.txt").write_text(message)
        git(root, "add", "-A")
        git(root, "commit", "--quiet", "-m", message)
    (root / "a.py").write_text("2")
    (root / "gone.txt").unlink()
    (root / "new ü.txt").write_text("new")
    (root / "data").mkdir()
    (root / "data/large.bin").write_bytes(b"0" * 100)
    return root


def order_of(root: Path) -> Order:
    return Order("job-1", checkout_key(root), ["dvc", "repro"], hashes(sent_files(root), root), [], 10, True)


def test_the_commit_and_its_changes_are_sent(repository: Path) -> None:
    assert sent_files(repository) == [".gitignore", "a.py", "code/b.sh", "history.txt", "new ü.txt"]


def test_an_unpacked_package_is_the_repository_without_history(repository: Path, tmp_path: Path) -> None:
    target, there = tmp_path / "package.zip", tmp_path / "there"
    order = order_of(repository)
    write_package(order, target, repository)
    with zipfile.ZipFile(target) as packed:
        packed.extractall(there)
        assert packed.getinfo("code/b.sh").external_attr >> 16 & 0o111, "Ray restores the modes"
        assert not [name for name in packed.namelist() if "data" in name and ".git/" not in name]
    assert Order.read(there / ORDER) == order
    assert git(there, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert git(there, "rev-list", "--count", "HEAD") == "1"
    assert (there / "a.py").read_text() == "2"
    changed = git(there, "-c", "core.fileMode=false", "status", "--porcelain", "--untracked-files=no").splitlines()
    assert {line.split()[-1] for line in changed} == {"a.py", "gone.txt"}
    assert str(repository) not in (there / ".git/config").read_text()


def test_equal_contents_are_equal_packages(repository: Path, tmp_path: Path) -> None:
    """Ray names a package by its bytes, and does not send one that it has."""
    for name in ("one.zip", "two.zip"):
        write_package(order_of(repository), tmp_path / name, repository)
        os.utime(repository / "a.py", (1e9, 1e9))
    names = [
        {
            (m.filename, m.CRC, m.date_time)
            for m in zipfile.ZipFile(tmp_path / name).infolist()
            if ".git/" not in m.filename
        }
        for name in ("one.zip", "two.zip")
    ]
    assert names[0] == names[1]


def test_too_much_is_refused_with_the_largest_files(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "weights.bin").write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr(package, "LARGEST_PACKAGE", 2 << 20)
    with pytest.raises(UserError, match=r"are 3 MB, and Ray accepts 2 MB: .*largest are weights\.bin \(3 MB\)"):
        write_package(order_of(repository), tmp_path / "package.zip", repository)


def test_no_commit_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`git ls-files` failed .*expected a git repository"):
        sent_files(tmp_path)


def test_held_outputs_are_those_in_dvcs_cache(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    outs = [{"path": "a", "md5": "a" * 32, "size": 1}, {"path": "b", "md5": f"{'b' * 32}.dir", "size": 2}]
    lock.write_text(json.dumps({"schema": "2.0", "stages": {"one": {"cmd": "x", "outs": outs}, "two": {"cmd": "y"}}}))
    cache = tmp_path / "cache"
    (cache / "files/md5/bb").mkdir(parents=True)
    (cache / "files/md5/bb" / f"{'b' * 30}.dir").touch()
    assert held_outputs(lock, cache) == [f"{'b' * 32}.dir"]
    assert held_outputs(tmp_path / "missing", cache) == []
