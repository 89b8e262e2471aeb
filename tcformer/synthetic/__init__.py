"""Generated people with exact key points, written in the formats of COCO-WholeBody and ImageNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcformer.synthetic.options import GenerateImagenet, GenerateWholebody

if TYPE_CHECKING:
    from tcformer.synthetic.imagenet import generate_imagenet
    from tcformer.synthetic.wholebody import generate_wholebody

__all__ = ["GenerateImagenet", "GenerateWholebody", "generate_imagenet", "generate_wholebody"]


def __getattr__(name: str) -> Any:
    """Import numba and OpenCV only when something is to be drawn."""
    if name == "generate_wholebody":
        from tcformer.synthetic.wholebody import generate_wholebody

        return generate_wholebody
    if name == "generate_imagenet":
        from tcformer.synthetic.imagenet import generate_imagenet

        return generate_imagenet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
