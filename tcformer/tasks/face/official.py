"""The official dataset of face alignment: WFLW."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from tcformer.data.face.dataset import face_image_folder, list_file, load_faces
from tcformer.data.official import Archive, Inventory, OfficialDataset, Origin, RequiredPath, Source

_SPLITS: Final[tuple[Literal["train", "test"], ...]] = ("train", "test")


class Wflw(OfficialDataset):
    """The images and the lists of faces of WFLW."""

    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        paths = [*(list_file(Path(), split) for split in _SPLITS), face_image_folder(Path())]
        return [RequiredPath(path.as_posix()) for path in paths]

    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        inventory = Inventory(root)
        for split in _SPLITS:
            faces = load_faces(list_file(root, split))
            inventory.add_images(face_image_folder(root), faces.names)
            inventory.add_file(faces.source)
            inventory.counts[f"{split} faces"] = len(faces)
        return inventory


OFFICIAL = Wflw(
    origins=(
        Origin(
            title="WFLW images and face annotations",
            page="https://wywu.github.io/projects/LAB/WFLW.html",
            licence="none stated; for research",
            prefixes=("WFLW_images", "WFLW_annotations"),
            archives=(
                Archive(name="WFLW_images.tar.gz", unpacks_to="WFLW_images"),
                Archive(name="WFLW_annotations.tar.gz", unpacks_to="WFLW_annotations"),
            ),
        ),
    ),
    published_counts={"train faces": 7500, "test faces": 2500},
)
