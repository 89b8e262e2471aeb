"""Machines where tools cannot write where they want to: their caches are in a private folder."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import layout
from pipelines.provenance import git_revision
from pipelines.running import environment
from pipelines.running.environment import complete_environment
from tests.imports import ROOT

CACHES = ("XDG_CACHE_HOME", "TRITON_HOME", "MPLCONFIGDIR")


def environment_after_import(home: Path, temporary: Path, **given: str) -> dict[str, str]:
    program = "import os, pipelines\nfor item in os.environ.items(): print('='.join(item))"
    before = {name: value for name, value in os.environ.items() if name not in CACHES}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**before, "HOME": str(home), "TMPDIR": str(temporary), **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # also root cannot write below it
    found = environment_after_import(tmp_path / "file", tmp_path, TRITON_HOME="/mine")
    caches = tmp_path / f"tcformer-{os.getuid()}" / "cache"
    assert found["XDG_CACHE_HOME"] == str(caches) and caches.is_dir() and caches.parent.stat().st_mode & 0o777 == 0o700
    assert found["MPLCONFIGDIR"] == str(caches / "matplotlib") and found["TRITON_HOME"] == "/mine"


def test_another_home_stays_as_it_is(tmp_path: Path) -> None:
    found = environment_after_import(tmp_path, tmp_path)
    assert not set(CACHES) & set(found) and not list(tmp_path.glob("tcformer-*"))


def test_no_folder_for_temporary_files_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / f"tcformer-{os.getuid()}").symlink_to("/")
    assert "XDG_CACHE_HOME" not in environment_after_import(tmp_path / "file", tmp_path)


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(environment.getpass, "getuser", unknown)
    monkeypatch.setenv("USER", "")
    complete_environment()
    monkeypatch.undo()
    assert getpass.getuser()
    monkeypatch.setattr(environment.getpass, "getuser", unknown)
    monkeypatch.setenv("USER", "")
    complete_environment()
    assert os.environ["USER"] == f"user{os.getuid()}"


def test_dvc_keeps_its_state_in_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default is a folder of all users, and it opens pickles in it."""
    monkeypatch.setattr(layout, "ROOT", tmp_path / ".dvc" / "tmp" / "exps" / "1")
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    assert layout.dvc_environment() == {"DVC_SITE_CACHE_DIR": str(tmp_path / ".dvc" / "tmp" / "site_cache")}
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "/mine")
    assert layout.dvc_environment() == {"DVC_SITE_CACHE_DIR": "/mine"}


def test_a_dvc_that_a_person_types_keeps_its_state_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.cli import main
    from dvc.repo import Repo

    rule = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\n.venv/.installed:")[2].partition("\n\n")[0]
    [arguments] = re.findall(r"^\t@\[ ! -d \.dvc \] \|\| \$\(BIN\)/dvc (.*) 2>/dev/null \|\|", rule, re.MULTILINE)
    repository = tmp_path / "100% #1"
    repository.mkdir()
    monkeypatch.chdir(repository)
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    Repo.init(no_scm=True).close()
    assert main(shlex.split(arguments.replace("$(CURDIR)", str(repository)))) == 0
    with Repo() as repo:
        assert Path(repo.site_cache_dir).is_relative_to(repository / ".dvc" / "tmp" / "site_cache")
    assert "/config.local" in (ROOT / ".dvc" / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_what_a_training_keeps_outlives_the_copy_that_dvc_runs_an_experiment_in(tmp_path: Path) -> None:
    copied = layout.Layout("sample", tmp_path / ".dvc" / "tmp" / "exps" / "1")
    assert copied.checkpoints == tmp_path / "runs" / "sample" / "checkpoints"
    assert copied.journals == tmp_path / "runs" / "sample" / "mlflow"
    assert copied.training("face").is_relative_to(copied.root), "DVC takes its outputs there"
    assert layout.Layout("sample", tmp_path).checkpoints == copied.checkpoints


def test_a_repository_of_another_owner_has_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git refuses those, so that the revision would be lost; this variable is of git's own tests."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "provenance.py").touch()
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "a")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    own = git_revision(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "dubious ownership" in refused.stderr
    assert git_revision(tmp_path) == own and len(own) == 40
