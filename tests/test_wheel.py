"""An installation that is not editable has every file that the code reads, and names the extra that it lacks."""

import json
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from contextlib import suppress
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tcformer.data.test_foreign_data import record
from tests.tcformer.data.test_wholebody_data import content, person

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
    return built(folder / "tree", folder)


def built(source: Path, folder: Path) -> Path:
    """The wheel of a tree or of a source distribution, in `folder`, built without a network."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_tree() -> set[str]:
    """The files of the packages in the repository."""
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_wheel_has_all_files_of_the_packages_and_no_others(wheel: Path) -> None:
    in_wheel = {name for name in names_in(wheel) if ".dist-info/" not in name}
    documents = {name for name in in_tree() if name.endswith(".md")}
    assert in_tree() - documents <= in_wheel <= in_tree()


@pytest.mark.slow
def test_source_distribution_has_all_files_of_the_packages(wheel: Path, tmp_path: Path) -> None:
    """From it the same wheel is built where there is none for the machine."""
    shutil.copytree(
        ROOT, tmp_path / "tree", ignore=lambda folder, names: set(names) - COPIED if folder == str(ROOT) else []
    )
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "tree", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    archived = next(tmp_path.glob("*.tar.gz"))
    with tarfile.open(archived) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in in_tree() if not name.endswith(".md")} <= names
    assert names_in(built(archived, tmp_path)) == names_in(wheel)


def test_every_package_declares_its_types(wheel: Path) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names_in(wheel)


def site_packages(folder: Path, wheel: Path, extras: set[str]) -> Path:
    """An environment with the wheel and the packages that it needs, as links to this environment's; returns its Python.

    Args:
        folder: of the environment.
        wheel: is unpacked into it.
        extras: of the wheel that are installed.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    place = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    [own] = Distribution.discover(path=[str(place)])
    waiting = [(canonicalize_name(own.name), frozenset(extras), own.requires or [])]
    seen = set()
    while waiting:
        name, chosen, needed = waiting.pop()
        for requirement in map(Requirement, needed):
            if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in {"", *chosen}):
                continue
            wanted = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if wanted in seen:
                continue
            seen.add(wanted)
            found = own if wanted[0] == name == canonicalize_name(own.name) else distribution(requirement.name)
            waiting.append((*wanted, found.requires or []))
            for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
                with suppress(FileExistsError):  # several packages share some folders
                    (place / top).symlink_to(found.locate_file(top))
    return folder / "bin" / "python"


PROGRAM = """
import json, sys
from pathlib import Path
import torch
import tcformer
from tcformer.metrics import evaluate_wholebody

model = tcformer.create_model("tcformer_nano", task="imagenet", num_classes=3)
assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
place = Path(sys.argv[1])

def save_and_load():
    tcformer.save_model(model, place / "model.safetensors")
    return tcformer.load_model(place / "model.safetensors").config["variant"]

def evaluate():
    return evaluate_wholebody(place / "annotations.json", place / "results.json")["body"]["AP"]

for call in (save_and_load, evaluate):
    try:
        print(call())
    except ModuleNotFoundError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("extras", [set(), {"data"}], ids=["alone", "data"])
def test_an_installation_elsewhere_works_or_names_the_extra(wheel: Path, extras: set[str], tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text(json.dumps(content(person(1))))
    (tmp_path / "results.json").write_text(json.dumps([record()]))
    python = site_packages(tmp_path / "venv", wheel, extras)
    done = subprocess.run([python, "-I", "-c", PROGRAM, tmp_path], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    if extras:
        assert lines[0] == "tcformer_nano" and float(lines[1]) == pytest.approx(1)
    else:
        assert len(lines) == 2 and all("expected the extra 'data' of tcformer" in line for line in lines)
    command = subprocess.run([python, "-I", "-m", "stages.cli"], cwd=tmp_path, capture_output=True, text=True)
    assert command.returncode == 1 and "install tcformer with the extra 'pipeline'" in command.stderr
