"""A package that is missing is reported with the extra that installs it, and pyproject.toml has it in that extra."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tcformer.extras import EXTRAS
from tests.imports import LAYERS, ROOT, SOURCES, imported

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}


def distributions(extra: str | None) -> Iterator[str]:
    """The packages of an extra, or those that are always installed."""
    for text in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        if requirement.name == "tcformer":
            for other in requirement.extras:
                yield from distributions(other)
        else:
            yield canonicalize_name(requirement.name)


def with_theirs(names: set[str]) -> set[str]:
    """Packages and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needed = map(Requirement, requires(name) or [])
            waiting += [canonicalize_name(r.name) for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


ALWAYS = with_theirs(set(distributions(None)))


@pytest.mark.parametrize("layer", LAYERS)
def test_every_imported_package_is_in_the_extra_that_the_message_names(layer: str) -> None:
    allowed = {"data", "export"} if layer in ("kernels", "tcformer") else {"data", "pipeline"}
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != layer:
            continue
        for module in {name.split(".")[0] for name in imported(path)} - set(LAYERS) - set(sys.stdlib_module_names):
            if NAMES[module] & ALWAYS:
                continue
            extra = EXTRAS.get(module)
            assert extra in allowed, f"{path}: {module}: {extra}"
            assert NAMES[module] & set(distributions(extra)), f"{module} is not in the extra {extra}"


def test_the_environment_of_make_has_all_extras() -> None:
    assert {name for extra in EXTRAS.values() for name in distributions(extra)} <= set(distributions("dev"))


HIDE = """
import importlib.util, sys
from importlib.machinery import PathFinder
HIDDEN = set(sys.argv[1].split(","))
class Visible(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Visible
import tcformer
from tcformer.errors import UserError
"""


def without(hidden: str, code: str) -> str:
    """What a program prints that cannot import some packages."""
    done = subprocess.run([sys.executable, "-c", HIDE + code, hidden], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    printed = without(
        "safetensors,pycocotools,cv2",
        f"""
model = tcformer.create_model("tcformer_nano", "imagenet", num_classes=3)
from tcformer.metrics import evaluate_wholebody
truth = {{"images": [{{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}}], "annotations": []}}
def picture():
    import tcformer.draw.canvas
for call in (lambda: tcformer.save_model(model, {str(tmp_path / "a.safetensors")!r}),
             lambda: evaluate_wholebody(truth, []), picture):
    try:
        call()
    except ModuleNotFoundError as error:
        assert isinstance(error, UserError)
        print(error)
""",
    )
    lines = printed.splitlines()
    for module, line in zip(("safetensors", "pycocotools", "cv2"), lines, strict=True):
        assert line.startswith(f"the package that contains the module {module}") and "'.[data]'" in line, line


def test_who_asks_whether_a_package_exists_gets_an_answer(tmp_path: Path) -> None:
    """Other projects' code, and ours that does without it."""
    (tmp_path / "other.py").write_text(
        "try:\n    import cv2\nexcept ImportError as error:\n    print(type(error).__name__)\n"
    )
    printed = without(
        "cv2",
        f"""
sys.path.append({str(tmp_path)!r})
import other
print(importlib.util.find_spec("cv2"))
""",
    )
    assert printed.split() == ["ModuleNotFoundError", "None"]
