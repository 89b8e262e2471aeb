"""Datasets: from the official files to samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.data.batch import collate
    from tcformer.data.face.dataset import FaceAugmentation, FaceDataset, load_faces
    from tcformer.data.imagenet.dataset import ImageAugmentation, ImageFolderDataset
    from tcformer.data.images import BrokenImage, ImageError, read_image
    from tcformer.data.mesh.dataset import MeshAugmentation, MeshDataset
    from tcformer.data.mesh.files import load_bodies
    from tcformer.data.wholebody.dataset import WholebodyAugmentation, WholebodyDataset, load_people

_MODULES = {
    "BrokenImage": "images",
    "FaceAugmentation": "face.dataset",
    "FaceDataset": "face.dataset",
    "ImageAugmentation": "imagenet.dataset",
    "ImageError": "images",
    "ImageFolderDataset": "imagenet.dataset",
    "MeshAugmentation": "mesh.dataset",
    "MeshDataset": "mesh.dataset",
    "WholebodyAugmentation": "wholebody.dataset",
    "WholebodyDataset": "wholebody.dataset",
    "collate": "batch",
    "load_bodies": "mesh.files",
    "load_faces": "face.dataset",
    "load_people": "wholebody.dataset",
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

__getattr__ = lazy_exports(__name__, _MODULES)
