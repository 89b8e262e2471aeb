"""Which code made a result: a commit where git tracks the code, else the version."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from pipelines.provenance import ROOT, git_revision

VERSION = f"tcformer {importlib.metadata.version('tcformer')}"


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(["git", *person, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of something else, with the code in a folder that git does not track, as a virtual environment."""
    git(tmp_path, "init", "-q")
    (tmp_path / "README.md").write_text("something else")
    git(tmp_path, "add", "README.md")
    git(tmp_path, "commit", "-qm", "Something else")
    packages = tmp_path / "env" / "site-packages"
    (packages / "pipelines").mkdir(parents=True)
    (packages / "pipelines" / "provenance.py").write_text("")
    return tmp_path


def test_an_installed_package_has_a_version_and_no_commit(repository: Path) -> None:
    assert git_revision(repository / "env" / "site-packages") == VERSION


def test_tracked_code_has_a_commit(repository: Path) -> None:
    packages = repository / "env" / "site-packages"
    git(repository, "add", "env")
    git(repository, "commit", "-qm", "The code")
    commit = git(repository, "rev-parse", "HEAD")
    assert git_revision(packages) == commit
    (packages / "notes.txt").write_text("untracked")
    (repository / "README.md").write_text("changed, but not of the code")
    assert git_revision(packages) == commit
    (packages / "pipelines" / "provenance.py").write_text("changed")
    assert git_revision(packages) == f"{commit}-dirty"


def test_without_a_commit_or_without_git_it_is_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_revision(tmp_path) == VERSION
    git(tmp_path, "init", "-q")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "provenance.py").write_text("")
    git(tmp_path, "add", "pipelines")
    assert git_revision(tmp_path) == VERSION, "tracked, but there is no commit yet"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(ROOT) == VERSION


def test_code_that_is_not_installed_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.provenance.DISTRIBUTION", "tcformer-that-nobody-installed")
    assert git_revision(tmp_path) == "unknown"
