"""The official dataset of whole-body pose: COCO-WholeBody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from tcformer.data.official import Archive, Inventory, OfficialDataset, Origin, RequiredPath, Source
from tcformer.data.wholebody.dataset import (
    annotated_crops,
    annotation_file,
    detected_crops,
    detection_file,
    image_folder,
    load_people,
)

_SPLITS: Final[tuple[Literal["train", "val"], ...]] = ("train", "val")


class CocoWholebody(OfficialDataset):
    """Images of COCO 2017, annotations of COCO-WholeBody, person detections on the validation images."""

    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        here = Path()
        paths = [*(annotation_file(here, split) for split in _SPLITS), detection_file(here)]
        paths += [image_folder(here, split) for split in _SPLITS]
        return [RequiredPath(path.as_posix()) for path in paths]

    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        inventory = Inventory(root)
        for split in _SPLITS:
            people, folder = load_people(annotation_file(root, split)), image_folder(root, split)
            crops = [annotated_crops(people)]
            if split == "val":
                crops.append(detected_crops(detection_file(root), people, least_score=0.0))
            inventory.add_images(folder, (people.images[int(i)][0] for c in crops for i in c.image_id))
            inventory.add_file(annotation_file(root, split))
            with os.scandir(folder) as entries:
                inventory.counts[f"{folder.name} images"] = sum(entry.name.endswith(".jpg") for entry in entries)
            inventory.counts[f"{split} people"] = len(people)
        inventory.add_file(detection_file(root))
        return inventory


# The published checksums are those in public loaders of COCO.
OFFICIAL = CocoWholebody(
    origins=(
        Origin(
            title="COCO 2017 images",
            page="https://cocodataset.org/#download",
            licence="Flickr's terms; each image under its own Creative Commons licence",
            prefixes=("train2017", "val2017"),
            archives=(
                Archive(name="train2017.zip", unpacks_to="train2017", md5="cced6f7f71b7629ddf16f17bbcfab6b2"),
                Archive(name="val2017.zip", unpacks_to="val2017", md5="442b8da7639aecaf257c1dceb8ba8c80"),
            ),
        ),
        Origin(
            title="COCO-WholeBody V1.0 annotations",
            page="https://github.com/jin-s13/COCO-WholeBody",
            licence="non-commercial research",
            prefixes=("annotations",),
        ),
        Origin(
            title="SimpleBaseline's person detections",
            page="https://github.com/microsoft/human-pose-estimation.pytorch",
            licence="none stated for the file",
            prefixes=("person_detection_results",),
        ),
    ),
    published_counts={"train2017 images": 118287, "val2017 images": 5000},
)
