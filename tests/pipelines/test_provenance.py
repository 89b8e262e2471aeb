"""What is recorded of the code (a commit where git tracks it, else the version) and of the machine."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from pipelines.layout import ROOT
from pipelines.provenance import cpu, git_revision

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


def test_model_and_instruction_sets(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    core = "processor\t: {}\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu avx2 fma avx ht\nbugs\t\t: none\n\n"
    description.write_text(core.format(0) + core.format(1))
    assert cpu(description) == {"model": "Some CPU @ 2.00GHz", "instruction_sets": "avx fma avx2"}


def test_arm_names_its_instruction_sets_otherwise(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text("processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU part\t: 0xd40\n")
    assert cpu(description)["instruction_sets"] == "asimd bf16 sve"


def test_a_machine_without_a_description_has_a_name(tmp_path: Path) -> None:
    found = cpu(tmp_path / "missing")
    assert found["model"] and found["instruction_sets"] == ""
