"""Every loader on pieces of the real datasets: counts, coordinates, crops.

With TCFORMER_SHEETS set to a folder the crops with their points are written there, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tcformer.body.joints import NUM_OPENPOSE
from tcformer.data.face.dataset import FaceDataset, face_image_folder, list_file, load_faces
from tcformer.data.imagenet.dataset import ImageFolderDataset, find_classes
from tcformer.data.images import denormalise, read_image
from tcformer.data.mesh.dataset import MeshDataset
from tcformer.data.mesh.files import load_bodies
from tcformer.data.wholebody.dataset import WholebodyDataset, annotated_crops, annotation_file, load_people
from tcformer.draw import write_png
from tcformer.models.heads import MeshHead


def write_sheet(name: str, crops: list[np.ndarray]) -> None:
    """Write up to 24 crops (H, W, 3) of one size as a page."""
    folder = os.environ.get("TCFORMER_SHEETS")
    if folder:
        crops = crops[:24] + [np.zeros_like(crops[0])] * (-len(crops[:24]) % 6)
        rows = [np.concatenate(crops[i : i + 6], 1) for i in range(0, len(crops), 6)]
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_png(Path(folder) / f"{name}.png", np.concatenate(rows))


def dotted(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The normalised crop (3, H, W) as a picture with the points (K, 2) on it, in rainbow order."""
    picture = np.ascontiguousarray(denormalise(image))
    colours = cv2.applyColorMap(np.linspace(0, 255, len(points)).astype(np.uint8)[:, None], cv2.COLORMAP_RAINBOW)
    for (x, y), colour in zip(points, colours[:, 0], strict=True):
        if x or y:
            cv2.circle(picture, (round(float(x)), round(float(y))), 3, tuple(map(int, colour[::-1])), -1, cv2.LINE_AA)
    return picture


@pytest.mark.parametrize(
    ("file", "images", "people", "points"),
    [
        ("lspet/joints.mat", "lspet/images", 400, 4866),
        ("mpii/annot/valid.json", "mpii/images", 3, 48),  # of five people the three with all points
        ("coco/annotations/person_keypoints_train2017.json", "coco/train2017", 16, None),
        ("coco/annotations/person_keypoints_val2017.json", "coco/val2017", 11, None),
    ],
)
def test_people_with_points_alone(samples: Path, file: str, images: str, people: int, points: int | None) -> None:
    bodies = load_bodies(samples / file)
    assert len(bodies) == people and not bodies.has_smpl.any()
    known = bodies.keypoints[:, :, 2] > 0
    assert not known[:, :NUM_OPENPOSE].any(), "OpenPose's points are known to none of these files"
    if points is not None:
        assert known.sum() == points
    outside = 0
    for name, row, labelled in zip(bodies.image, bodies.keypoints, known, strict=True):
        height, width = read_image(samples / images / name).shape[:2]
        x, y = row[labelled, 0], row[labelled, 1]
        outside += int(((x < -1) | (y < -1) | (x > width) | (y > height)).sum())
    assert outside <= (1 if "lspet" in file else 0), "one point of LSP-Extended lies outside, as its authors have it"

    data = MeshDataset(bodies, samples / images, input_size=112)
    crops = []
    for index in range(min(24, len(data))):
        sample = data.sample(index, None)
        where = sample["keypoints"][NUM_OPENPOSE:]
        assert np.abs(where[where[:, 2] > 0, :2]).max() < 1.2, "people lie within their boxes, or nearly"
        crops.append(dotted(sample["image"], np.where(where[:, 2:] > 0, (where[:, :2] + 1) * 56, 0)))
    write_sheet(file.split("/")[0] + "-" + Path(file).stem, crops)


def test_persons(samples: Path) -> None:
    root = samples / "coco_wholebody"
    people = load_people(annotation_file(root, "val"))
    assert len(people) == 26 and len(people.images) == 5
    crops = annotated_crops(people)
    assert len(crops) == 24, "those with a labelled point"
    data = WholebodyDataset(crops, root / "val2017", input_size=(256, 192), padding=1.25)
    pages = []
    for index in range(len(data)):
        sample = data.sample(index, None)
        assert sample["image"].shape == (3, 256, 192)
        pages.append(dotted(sample["image"], sample["points"]))
    write_sheet("coco_wholebody", pages)


def test_faces(samples: Path) -> None:
    root = samples / "wflw"
    faces = load_faces(list_file(root, "test"))
    assert len(faces) == 4 and len(set(faces.names)) == 2
    data = FaceDataset(faces, face_image_folder(root), input_size=(128, 128), padding=1.25)
    pages = []
    for index in range(4):
        sample = data.sample(index, None)
        assert (sample["points"] >= 0).all() and (sample["points"] < 128).all()
        pages.append(dotted(sample["image"], sample["points"]))
    write_sheet("wflw", pages)


def test_classes(samples: Path) -> None:
    root = samples / "imagenet"
    pages = []
    for split, count in (("train", 96), ("val", 24)):
        data = ImageFolderDataset(root, split, find_classes(root, num_classes=120), size=112, crop_fraction=0.875)
        assert len(data) == count
        pages += [denormalise(data.sample(index, None)["image"]) for index in range(0, count, 8)]
    write_sheet("imagenet", pages)


def test_mean_parameters_of_hmr(samples: Path) -> None:
    with np.load(samples / "smpl_misc" / "smpl_mean_params.npz") as file:
        pose, shape, camera = (torch.from_numpy(file[name]) for name in ("pose", "shape", "cam"))
    head = MeshHead(32)
    head.set_mean(pose, shape, camera)
    for parameter in head.parameters():
        parameter.data.zero_()
    with torch.no_grad():
        found = head(torch.zeros(1, 32))
    rotations = found.rotations[0]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(24, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(rotations[0], torch.diag(torch.tensor([1.0, -1.0, -1.0])), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.shape[0], shape)
    torch.testing.assert_close(found.camera[0], torch.tensor([0.9, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("persons/astronaut.png", (512, 512)),
        ("persons/grace_hopper.jpg", (600, 512)),
        ("lsp/spin_examples/im1010.jpg", (192, 153)),
    ],
)
def test_single_pictures(samples: Path, file: str, size: tuple[int, int]) -> None:
    image = read_image(samples / file)
    assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.std() > 20
