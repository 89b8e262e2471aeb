"""A workplace: the repository's code in a folder of its own, with parameters small enough for a test."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from ruamel.yaml import YAML

from pipelines.params import load_params, spec_to_json

ROOT = Path(__file__).resolve().parents[1]
# DVC reports each command to its makers where a repository does not say no; those of the tests were made by `dvc init`.
os.environ["DVC_NO_ANALYTICS"] = "1"
COPIED = ("kernels", "tcformer", "pipelines", "stages", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore")


# On a busy machine hypothesis would take slow drawing of values for a fault of the test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests that run side by side, those that take longest begin first."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


@dataclass(frozen=True)
class Workplace:
    """A folder in which stages run as they do in the repository."""

    folder: Path

    def set(self, **changes: Any) -> None:
        """Change parameters: dots in their names are written as two underscores."""
        yaml = YAML()
        path = self.folder / "params.yaml"
        tree = yaml.load(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *sections, leaf = name.split("__")
            node = tree
            for section in sections:
                node = node[section]
            assert leaf in node, name
            node[leaf] = value
        with path.open("w", encoding="utf-8") as stream:
            yaml.dump(tree, stream)

    def options(self, task: str) -> str:
        """The sample recipe's options of a task, as a weights file keeps them."""
        return spec_to_json(load_params(self.folder / "params.yaml").sample.spec_of(task))

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in the folder; "python" and "dvc" are those of this environment."""
        tools = str(Path(sys.executable).parent)
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, status: int = 0, **environment: str) -> str:
        """Run a command to its end, check its exit status, return what it printed."""
        process = self.start(*command, **environment)
        printed, _ = process.communicate(timeout=1200)
        assert process.returncode == status, printed
        return printed


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real samples: the one that TCFORMER_SAMPLES names, else shared/samples beside the repository."""
    named = os.environ.get("TCFORMER_SAMPLES")
    folder = Path(named) if named else ROOT.parent / "shared" / "samples"
    if folder.is_dir():
        return folder.resolve()
    if named:
        pytest.fail(f"TCFORMER_SAMPLES={named}: no such folder; expected one with coco_wholebody, imagenet, wflw, ...")
    pytest.skip("needs the real samples, which are not beside the repository; name their folder in TCFORMER_SAMPLES")


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment in which stages join one Ray, as those of `make repro` do, rather than start their own."""
    folder = tmp_path_factory.mktemp("ray")
    wait = (
        "import json, os, sys; "
        "print(json.dumps({name: value for name, value in os.environ.items() if 'RAY' in name}), flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-m", "pipelines.shared_ray", "--", sys.executable, "-c", wait]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdin and process.stdout
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
                    break
            else:
                raise AssertionError((folder / "errors").read_text())
        finally:
            process.stdin.close()
            process.wait(timeout=60)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return make_workplace(tmp_path / "work place")  # people have spaces in their paths


def make_workplace(folder: Path) -> Workplace:
    """Copy the repository's code to a new folder, with small parameters."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)  # with what Python and numba have compiled, which takes time
        else:
            shutil.copy(source, folder / name)
    place = Workplace(folder)
    sample = "sample__{}".format
    place.set(
        **{
            sample("data__imagenet__generate__train_images_per_class"): 2,
            sample("data__imagenet__generate__val_images_per_class"): 1,
            sample("data__imagenet__generate__image_size"): [64, 64],
            sample("data__wholebody__generate__train_images"): 12,
            sample("data__wholebody__generate__val_images"): 4,
            sample("data__wholebody__generate__image_size"): [128, 128],
            sample("data__face__generate__train_images"): 8,
            sample("data__face__generate__test_images"): 6,
            sample("data__face__generate__image_size"): [64, 64],
            sample("data__mesh__generate__train_images"): 8,
            sample("data__mesh__generate__test_images"): 4,
            sample("data__mesh__generate__image_size"): [64, 64],
            sample("pretrain__training__epochs"): 2,
            sample("pretrain__training__global_batch"): 8,
            sample("pretrain__training__checkpoint_every"): 2,
            sample("pretrain__training__log_every"): 1,
            sample("finetune__wholebody__training__epochs"): 2,
            sample("finetune__wholebody__training__global_batch"): 8,
            sample("finetune__wholebody__task__input_size"): [64, 48],
            sample("finetune__face__training__epochs"): 1,
            sample("finetune__face__training__global_batch"): 8,
            sample("finetune__mesh__training__epochs"): 1,
            sample("finetune__mesh__training__global_batch"): 8,
            sample("visualize__imagenet__samples"): 2,
            sample("visualize__wholebody__samples"): 2,
            sample("visualize__face__samples"): 2,
            sample("visualize__mesh__samples"): 2,
        }
    )
    return place
