"""Generated people with exact labels, written in the formats of COCO-WholeBody, ImageNet, WFLW, SPIN and 3DPW."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tcformer.synthetic.options import GenerateFace, GenerateImagenet, GenerateMesh, GenerateWholebody

if TYPE_CHECKING:
    from tcformer.synthetic.face import generate_face
    from tcformer.synthetic.imagenet import generate_imagenet
    from tcformer.synthetic.mesh import generate_mesh
    from tcformer.synthetic.wholebody import generate_wholebody

__all__ = [
    "GenerateFace",
    "GenerateImagenet",
    "GenerateMesh",
    "GenerateWholebody",
    "generate_face",
    "generate_imagenet",
    "generate_mesh",
    "generate_wholebody",
]

_MODULE_OF = {
    "generate_face": "face",
    "generate_imagenet": "imagenet",
    "generate_mesh": "mesh",
    "generate_wholebody": "wholebody",
}


def __getattr__(name: str) -> Any:
    """Import numba and OpenCV only when something is to be drawn."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
