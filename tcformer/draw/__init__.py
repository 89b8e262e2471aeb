"""Pictures of what the network sees: token regions, token sizes, keypoints, landmarks, body meshes, contact sheets.

All pictures are uint8 RGB arrays (H, W, 3). Names are loaded when first used, so importing this package needs
no OpenCV.
"""

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.draw.bodies import body, body_joints, body_mask
    from tcformer.draw.density import cells_per_token, token_density
    from tcformer.draw.faces import face_mask, landmarks
    from tcformer.draw.people import keypoints, person_mask, side_legend
    from tcformer.draw.png import png_bytes, write_png
    from tcformer.draw.regions import enlarge, size_legend, token_sizes, tokens
    from tcformer.draw.sheets import Example, Partition, sheet, token_sheet

__all__ = [
    "Example",
    "Partition",
    "body",
    "body_joints",
    "body_mask",
    "cells_per_token",
    "enlarge",
    "face_mask",
    "keypoints",
    "landmarks",
    "person_mask",
    "png_bytes",
    "sheet",
    "side_legend",
    "size_legend",
    "token_density",
    "token_sheet",
    "token_sizes",
    "tokens",
    "write_png",
]

_MODULES = {
    "Example": "sheets",
    "Partition": "sheets",
    "body": "bodies",
    "body_joints": "bodies",
    "body_mask": "bodies",
    "cells_per_token": "density",
    "enlarge": "regions",
    "face_mask": "faces",
    "keypoints": "people",
    "landmarks": "faces",
    "person_mask": "people",
    "png_bytes": "png",
    "sheet": "sheets",
    "side_legend": "people",
    "size_legend": "regions",
    "token_density": "density",
    "token_sheet": "sheets",
    "token_sizes": "regions",
    "tokens": "regions",
    "write_png": "png",
}

__getattr__ = lazy_exports(__name__, _MODULES)
