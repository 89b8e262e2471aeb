"""What a complete official data set holds: that no image is missing, how many there are, which bytes they are.

Annotations are read and checked by the code that reads them for training; an annotation file is known by its SHA-256,
images by their names and sizes.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.datasets.catalogue import Item, Source, Wanted, wanted
from pipelines.provenance import sha256_of_json
from tcformer.data.face.dataset import face_image_folder, list_file, load_faces
from tcformer.data.imagenet.dataset import class_images, class_names
from tcformer.data.mesh.files import load_bodies
from tcformer.data.wholebody.dataset import (
    annotated_crops,
    annotation_file,
    detected_crops,
    detection_file,
    image_folder,
    load_people,
)
from tcformer.files import sha256_of_file

#: What the publishers count.
PUBLISHED = {
    "imagenet": {"train classes": 1000, "val classes": 1000, "train images": 1281167, "val images": 50000},
    "wholebody": {"train2017 images": 118287, "val2017 images": 5000},
    "face": {"train faces": 7500, "test faces": 2500},
}


@dataclass
class Inventory:
    """What is in a data set."""

    #: file or folder below the root -> SHA-256
    identities: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    #: images that annotations name and that are not there, or empty
    missing: list[Item] = field(default_factory=list)

    def warnings(self, task: str) -> list[str]:
        """Where the counts are not the published ones."""
        return [
            f"{self.counts[name]} {name}, {expected} are published: good for trials only if this is a subset on purpose"
            for name, expected in PUBLISHED.get(task, {}).items()
            if self.counts[name] != expected
        ]

    def add_images(self, root: Path, folder: Path, names: Iterable[str], source: Source | None = None) -> None:
        """Take in the named images of a folder below the root."""
        place = folder.relative_to(root).as_posix()
        found = []
        for name in sorted(set(names)):
            try:
                size = os.stat(folder / name).st_size
            except OSError:
                size = 0
            if size:
                found.append([name, size])
            else:
                hint = "it is empty" if (folder / name).exists() else ""
                self.missing.append(Item(Wanted(f"{place}/{name}", source), "missing", hint=hint))
        self.identities[place] = sha256_of_json([self.identities.get(place, ""), found])

    def add_file(self, root: Path, path: Path) -> None:
        """Take in a file, or the files of a folder, by their bytes."""
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            self.identities[file.relative_to(root).as_posix()] = sha256_of_file(file)


def take_inventory(task: str, root: Path, sources: Sequence[Source]) -> Inventory:
    """Read the annotations of a data set and look for its images.

    Raises:
        UserError: annotations that break their format.
    """
    inventory = Inventory()
    if task == "imagenet":
        _imagenet(inventory, root)
    elif task == "wholebody":
        _wholebody(inventory, root)
    elif task == "face":
        _face(inventory, root)
    else:
        _mesh(inventory, root, sources)
    return inventory


def _imagenet(inventory: Inventory, root: Path) -> None:
    for split in ("train", "val"):
        folder, found = root / split, []
        names = sorted(class_names(folder))
        for wnid in names:
            images = class_images(folder, wnid)
            in_files = bool(images) and images[0].offset < 0
            for image in images:
                size = os.stat(folder / wnid / image.name).st_size if in_files else image.size
                found.append([wnid, image.name, size])
        if not found:
            hint = "it holds no class folders or class tars with images"
            inventory.missing.append(Item(Wanted(split), "missing", hint=hint))
        empty = (f"{split}/{wnid}/{name}" for wnid, name, size in found if not size)
        inventory.missing += [Item(Wanted(path), "missing", hint="it is empty") for path in empty]
        inventory.counts |= {f"{split} classes": len(names), f"{split} images": len(found)}
        inventory.identities[split] = sha256_of_json(found)  # the same for class folders and class tars


def _wholebody(inventory: Inventory, root: Path) -> None:
    for split in ("train", "val"):
        people, folder = load_people(annotation_file(root, split)), image_folder(root, split)
        crops = [annotated_crops(people)]
        if split == "val":
            crops.append(detected_crops(detection_file(root), people, least_score=0.0))
        inventory.add_images(root, folder, (people.images[int(i)][0] for c in crops for i in c.image_id))
        inventory.add_file(root, annotation_file(root, split))
        with os.scandir(folder) as entries:
            inventory.counts[f"{folder.name} images"] = sum(entry.name.endswith(".jpg") for entry in entries)
        inventory.counts[f"{split} people"] = len(people)
    inventory.add_file(root, detection_file(root))


def _face(inventory: Inventory, root: Path) -> None:
    for split in ("train", "test"):
        faces = load_faces(list_file(root, split))
        inventory.add_images(root, face_image_folder(root), faces.names)
        inventory.add_file(root, faces.source)
        inventory.counts[f"{split} faces"] = len(faces)


def _mesh(inventory: Inventory, root: Path, sources: Sequence[Source]) -> None:
    body = [each.path for each in wanted("mesh", sources) if each.path.startswith("body/")]
    for path in (*body, "body/vertex_ids.json"):  # the last only for models of another mesh than SMPL's
        inventory.add_file(root, root / path)
    for source in sources:
        bodies = load_bodies(root / source.annotations)
        inventory.add_images(root, root / source.images, bodies.image, source)
        inventory.add_file(root, root / source.annotations)
        inventory.counts[f"{source.annotations} people"] = len(bodies)
