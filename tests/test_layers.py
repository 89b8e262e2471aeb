"""The layers: imports point downward only, and the lower two stand on torch, triton and numpy alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import LAYERS, ROOT, SOURCES, imported

ADAPTERS = {
    "ray": {"ray.py", "ray_workers.py", "jobs.py", "nodes.py"},
    "deepspeed": {"deepspeed.py"},
    "mlflow": {"mlflow.py"},
    "pyarrow": {"storage.py"},
}


def upward_imports(layer: str, names: set[str]) -> set[str]:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    return {name for name in names if name.split(".")[0] in above}


def test_the_rule_itself_finds_an_upward_import() -> None:
    assert upward_imports("kernels", {"torch", "tcformer.models"}) == {"tcformer.models"}
    assert upward_imports("stages", {"kernels", "pipelines.adapters.ray"}) == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    assert upward_imports(layer, imported(path)) == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_orchestration_tool_is_used_in_its_adapters_alone(path: Path) -> None:
    used = {name.split(".")[0] for name in imported(path)} & (set(ADAPTERS) | {"dvc"})
    allowed = {
        tool for tool, names in ADAPTERS.items() if path.parent == ROOT / "pipelines/adapters" and path.name in names
    }
    if path == ROOT / "pipelines/paper/dvc_experiments.py":
        allowed.add("dvc")
    assert used <= allowed


@pytest.mark.slow
def test_kernels_and_tcformer_need_torch_triton_and_numpy_alone() -> None:
    program = """
import sys, importlib.util
needed = {"torch", "triton", "numpy", "kernels", "tcformer"}
import torch, numpy                                  # whatever these bring along is allowed
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        third_party = top in REFUSED
        if third_party:
            raise ImportError(f"{name} is imported by `import tcformer`")
REFUSED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuse())
import kernels, tcformer
model = tcformer.create_model("tcformer_nano", task="imagenet", num_classes=3)
assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
"""
    refused = (
        "cv2,PIL,timm,numba,scipy,skimage,pycocotools,simplejpeg,safetensors,torchvision,pydantic,ruamel,ray,mlflow,dvc"
    )
    done = subprocess.run([sys.executable, "-c", program, refused], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == "", "importing prints nothing"
