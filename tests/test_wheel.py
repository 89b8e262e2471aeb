"""An installation that is not editable has every file that the code reads."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kernels", "tcformer", "pipelines", "stages")
COPIED = {*PACKAGES, "pyproject.toml", "README.md", "LICENSE", "NOTICE"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network from a copy: setuptools leaves its `build` folder beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in COPIED - set(PACKAGES):
        shutil.copy(ROOT / name, folder / "tree")
    build = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*build, str(folder / "tree")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def in_tree() -> set[str]:
    """The files of the packages in the repository."""
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_has_all_files_of_the_packages_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    documents = {name for name in in_tree() if name.endswith(".md")}
    assert in_tree() - documents <= in_wheel <= in_tree()


def test_source_distribution_has_all_files_of_the_packages(tmp_path: Path) -> None:
    """From it wheels are built where there is none for the machine."""
    shutil.copytree(
        ROOT, tmp_path / "tree", ignore=lambda folder, names: set(names) - COPIED if folder == str(ROOT) else []
    )
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "tree", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in in_tree() if not name.endswith(".md")} <= names


def test_every_package_declares_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert {f"{package}/py.typed" for package in PACKAGES} <= set(archive.namelist())
