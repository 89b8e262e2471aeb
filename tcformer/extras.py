"""Which extra of this project installs a package, for the message where the package is missing.

`pip install` without an extra brings the networks and the token operations alone: torch, triton and numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Final

from tcformer.errors import UserError

_OURS: Final = ("kernels", "tcformer", "pipelines", "stages")

#: Top-level module of another package -> the extra of pyproject.toml with that package.
EXTRAS: Final[dict[str, str]] = {
    **dict.fromkeys(("PIL", "cv2", "numba", "pycocotools", "safetensors", "scipy", "simplejpeg"), "data"),
    **dict.fromkeys(("ruamel", "skimage", "smplx", "timm", "torchvision"), "data"),
    **dict.fromkeys(("click", "deepspeed", "dvc", "filelock", "jinja2", "mlflow", "psutil", "pyarrow"), "pipeline"),
    **dict.fromkeys(("pydantic", "ray", "requests", "tqdm"), "pipeline"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
}


class MissingPackage(UserError, ModuleNotFoundError):
    """A package is not installed that an extra of this project installs."""


class _NamesExtras(MetaPathFinder):
    """Finds no module. It is asked when nothing else has found one, and raises the error that names the extra."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise MissingPackage if a statement `import` of this project's code needs the module."""
        extra = EXTRAS.get(fullname)
        if extra and _is_imported_by_us():
            raise MissingPackage(
                f"the package that contains the module {fullname} is not installed: expected the extra '{extra}' of "
                f"tcformer; install it as you installed tcformer, for example with `pip install '.[{extra}]'` in its "
                f"folder or `pip install 'tcformer[{extra}] @ ADDRESS'`"
            )


def _is_imported_by_us() -> bool:
    """Whether the code that is importing a module is this project's; others may ask for a package to do without it."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("importlib", "_frozen_importlib"):
        if frame.f_globals["__name__"] == "importlib.util":  # only asks whether the module exists
            return False
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).split(".")[0] in _OURS


def name_extras() -> None:
    """From now on, a missing package of an extra is reported with the extra's name."""
    if not any(isinstance(finder, _NamesExtras) for finder in sys.meta_path):
        sys.meta_path.append(_NamesExtras())
