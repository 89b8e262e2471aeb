"""Generated people with exact labels, written in the formats of COCO-WholeBody, ImageNet, WFLW, SPIN and 3DPW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports
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

_MODULES = {
    "generate_face": "face",
    "generate_imagenet": "imagenet",
    "generate_mesh": "mesh",
    "generate_wholebody": "wholebody",
}

__getattr__ = lazy_exports(__name__, _MODULES)
