"""Official files to samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcformer.data.batch import collate
    from tcformer.data.face import FaceAugmentation, FaceDataset, load_faces
    from tcformer.data.imagefolder import ImageAugmentation, ImageFolderDataset
    from tcformer.data.images import BrokenImage, ImageError, read_image
    from tcformer.data.mesh import MeshAugmentation, MeshDataset
    from tcformer.data.mesh_files import load_bodies
    from tcformer.data.wholebody import WholebodyAugmentation, WholebodyDataset, load_people

_HOME = {
    "BrokenImage": "images",
    "FaceAugmentation": "face",
    "FaceDataset": "face",
    "ImageAugmentation": "imagefolder",
    "ImageError": "images",
    "ImageFolderDataset": "imagefolder",
    "MeshAugmentation": "mesh",
    "MeshDataset": "mesh",
    "WholebodyAugmentation": "wholebody",
    "WholebodyDataset": "wholebody",
    "collate": "batch",
    "load_bodies": "mesh_files",
    "load_faces": "face",
    "load_people": "wholebody",
    "read_image": "images",
}

__all__ = [
    "BrokenImage",
    "FaceAugmentation",
    "FaceDataset",
    "ImageAugmentation",
    "ImageError",
    "ImageFolderDataset",
    "MeshAugmentation",
    "MeshDataset",
    "WholebodyAugmentation",
    "WholebodyDataset",
    "collate",
    "load_bodies",
    "load_faces",
    "load_people",
    "read_image",
]


def __getattr__(name: str) -> Any:
    # Imported at the first use, so that the tables (`tcformer.data.keypoints`) load without torch.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"tcformer.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tcformer.data' has no attribute '{name}'")
