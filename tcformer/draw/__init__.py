"""Pictures of token regions, token sizes, keypoints, face landmarks and body meshes, and contact sheets of them.

All pictures are uint8 RGB arrays (H, W, 3). Each name is imported at its first use, so the import of this package
needs no OpenCV.
"""

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.draw.contact_sheets import Example, Partition, comparison_sheet, contact_sheet, token_sheet
    from tcformer.draw.density import cells_per_token, token_density
    from tcformer.draw.face import face_mask, landmarks
    from tcformer.draw.galleries import GalleryBlock, gallery, row_sizes
    from tcformer.draw.mesh import CroppedBody, bodies, body, body_joints, body_mask
    from tcformer.draw.pictures import enlarge, png_bytes, write_png
    from tcformer.draw.token_regions import size_legend, token_sizes, tokens
    from tcformer.draw.wholebody import keypoints, person_mask, side_legend

__all__ = [
    "CroppedBody",
    "Example",
    "GalleryBlock",
    "Partition",
    "bodies",
    "body",
    "body_joints",
    "body_mask",
    "cells_per_token",
    "comparison_sheet",
    "contact_sheet",
    "enlarge",
    "face_mask",
    "gallery",
    "keypoints",
    "landmarks",
    "person_mask",
    "png_bytes",
    "row_sizes",
    "side_legend",
    "size_legend",
    "token_density",
    "token_sheet",
    "token_sizes",
    "tokens",
    "write_png",
]

_MODULES = {
    "CroppedBody": "mesh",
    "Example": "contact_sheets",
    "GalleryBlock": "galleries",
    "Partition": "contact_sheets",
    "bodies": "mesh",
    "body": "mesh",
    "body_joints": "mesh",
    "body_mask": "mesh",
    "cells_per_token": "density",
    "comparison_sheet": "contact_sheets",
    "contact_sheet": "contact_sheets",
    "enlarge": "pictures",
    "face_mask": "face",
    "gallery": "galleries",
    "keypoints": "wholebody",
    "landmarks": "face",
    "person_mask": "wholebody",
    "png_bytes": "pictures",
    "row_sizes": "galleries",
    "side_legend": "wholebody",
    "size_legend": "token_regions",
    "token_density": "density",
    "token_sheet": "contact_sheets",
    "token_sizes": "token_regions",
    "tokens": "token_regions",
    "write_png": "pictures",
}

__getattr__ = lazy_exports(__name__, _MODULES)
