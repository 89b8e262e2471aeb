"""The official dataset of image classification: ImageNet-1K."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tcformer.data.imagenet.class_archives import (
    SUFFIX,
    WNID,
    index_file,
    sort_validation,
    validation_classes,
    write_index,
)
from tcformer.data.imagenet.dataset import class_images, class_names
from tcformer.data.official import (
    Archive,
    Inventory,
    MissingPath,
    OfficialDataset,
    Origin,
    Progress,
    RequiredPath,
    Source,
)
from tcformer.errors import UserError
from tcformer.files import sha256_of_json

DEVKIT: Final = "ILSVRC2012_devkit_t12"


class Imagenet(OfficialDataset):
    """Class folders, or a tar for each class, below train and val."""

    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        return [RequiredPath("train"), RequiredPath("val")]

    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        inventory = Inventory(root)
        for split in ("train", "val"):
            folder, found = root / split, []
            names = sorted(class_names(folder))
            for wnid in names:
                images = class_images(folder, wnid)
                in_files = bool(images) and images[0].offset < 0
                for image in images:
                    size = os.stat(folder / wnid / image.name).st_size if in_files else image.size
                    found.append([wnid, image.name, size])
                if in_files:
                    inventory.files += [f"{split}/{wnid}/{image.name}" for image in images]
                else:
                    tar = folder / f"{wnid}{SUFFIX}"
                    packed = [path for path in (tar, index_file(tar)) if path.is_file()]
                    inventory.files += [path.relative_to(root).as_posix() for path in packed]
            if not found:
                reason = "it contains no class folders or class tars with images"
                inventory.missing.append(MissingPath(split, reason=reason))
            empty = (f"{split}/{wnid}/{name}" for wnid, name, size in found if not size)
            inventory.missing += [MissingPath(path, reason="it is empty") for path in empty]
            inventory.counts |= {f"{split} classes": len(names), f"{split} images": len(found)}
            inventory.identities[split] = sha256_of_json(found)  # the same for class folders and class tars
        return inventory


def index_class_tars(archive: Path, folder: Path) -> None:
    """Write the index of each class tar that the training archive contains.

    Raises:
        UserError: the folder contains anything but tars of plain files that are named after classes.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix != SUFFIX or not WNID.fullmatch(path.stem):
            raise UserError(
                f"{archive}: unexpected member {path.name!r:.80}: expected class tars like n01440764.tar; "
                f"download the archive again"
            )
        try:
            write_index(path)
        except UserError as error:
            raise UserError(f"{archive}, in it {str(error).removeprefix(f'{folder}/')}") from None


def unpack_validation(archive: Path, folder: Path, root: Path, progress: Progress) -> None:
    """Sort the validation images into a tar for each class, by the ground truth of the development kit."""
    sort_validation(archive, validation_classes(root / DEVKIT), folder, progress)


# The published checksums are those in torchvision's ImageNet.
OFFICIAL = Imagenet(
    origins=(
        Origin(
            title="ImageNet-1K (ILSVRC2012)",
            page="https://image-net.org/download-images",
            licence="non-commercial research and education, after accepting its terms",
            prefixes=("train", "val", DEVKIT),
            archives=(
                Archive(
                    name="ILSVRC2012_img_train.tar",
                    unpacks_to="train",
                    md5="1d675b47d978889d74fa0da5fadfb00e",
                    finish=index_class_tars,
                ),
                Archive(
                    name="ILSVRC2012_img_val.tar",
                    unpacks_to="val",
                    md5="29b22e2961454d5413ddabcf34fc5622",
                    requires=DEVKIT,
                    unpack=unpack_validation,
                ),
                Archive(name="ILSVRC2012_devkit_t12.tar.gz", unpacks_to=DEVKIT, md5="fa75699e90414af021442c21a62c3abf"),
            ),
        ),
    ),
    published_counts={"train classes": 1000, "val classes": 1000, "train images": 1281167, "val images": 50000},
)
