"""Images decoded at a fraction of their size, and PyTorch's resizing: the same places, nearly the same pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tcformer.data import BrokenImage, MeshAugmentation, MeshDataset, load_bodies
from tcformer.data.imagenet.folder import random_crop_box, resize
from tcformer.data.images import ReducedImage, denormalise, read_image, read_reduced
from tcformer.data.mesh import dataset as mesh
from tests.tcformer.data.test_mesh_files import COUNT, write_spin

SIZE = 64
MOVED = MeshAugmentation(flip_probability=0.5, noise=0.0, rotation=30.0, scale=0.25, rotation_probability=0.7)


def dots(width: int, height: int, places: np.ndarray) -> Image.Image:
    """A dark picture with round spots of a standard deviation of 12 pixels."""
    y, x = np.mgrid[:height, :width]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 12**2)) for px, py in places)
    return Image.fromarray((40 + 200 * np.clip(light, 0, 1)).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(("ratio", "factor"), [(0.4, 1), (1.99, 1), (2.0, 2), (3.9, 2), (4.0, 4), (9.0, 8), (99.0, 8)])
def test_factors_and_sizes(ratio: float, factor: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (323, 201), (10, 200, 90)).save(path)
    image = read_reduced(path, ratio)
    assert image.factor == factor and image.size == (201, 323)
    assert image.pixels.shape == (-(-201 // factor), -(-323 // factor), 3)
    assert np.abs(image.pixels.astype(int) - [10, 200, 90]).max() <= 2


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_pixel_is_the_mean_of_those_it_stands_for(factor: int, subsampling: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    x = np.add.outer(np.arange(160), 2 * np.arange(240)) / 3
    Image.fromarray(np.stack([x, 200 - x, 60 + x / 2], -1).astype(np.uint8)).save(
        path, quality=98, subsampling=subsampling
    )
    whole, reduced = read_image(path).astype(float), read_reduced(path, factor)
    means = whole.reshape(160 // factor, factor, 240 // factor, factor, 3).mean((1, 3))
    assert np.abs(reduced.pixels - means).mean() < 0.6
    # The middle of the first pixel is the middle of the first `factor` pixels.
    np.testing.assert_allclose(reduced.to_full() @ [0, 0, 1], [(factor - 1) / 2, (factor - 1) / 2, 1])


def test_other_files_are_read_whole(tmp_path: Path) -> None:
    for name, mode, kind in (("a.png", "RGB", "PNG"), ("b.jpg", "CMYK", "JPEG")):
        Image.new("RGB", (64, 48), (1, 2, 3)).convert(mode).save(tmp_path / name, kind)
        image = read_reduced(tmp_path / name, 4.0)
        assert image.factor == 1 and image.pixels.shape == (48, 64, 3) and (image.to_full() == np.eye(3)).all()


def test_a_broken_file_is_broken_at_any_size(tmp_path: Path) -> None:
    stream = io.BytesIO()
    dots(320, 240, np.array([[100, 100]])).save(stream, "JPEG")
    path = tmp_path / "a.jpg"
    for data in (stream.getvalue()[: len(stream.getvalue()) // 2], b"", b"\xff\xd8\xff"):
        path.write_bytes(data)
        with pytest.raises(BrokenImage, match=r"a\.jpg: cannot be decoded"):
            read_reduced(path, 2.0)


@pytest.fixture
def people(tmp_path: Path) -> MeshDataset:
    """Five people in boxes of 6 times the crop's side, with three of their points as spots in the picture."""
    rng = np.random.default_rng(0)
    part = np.concatenate([rng.uniform(150, 450, (COUNT, 24, 2)), np.zeros((COUNT, 24, 1))], 2)
    part[:, :3, 2] = 1
    part[:, :3, :2] = [[200.3, 180.6], [400.8, 310.1], [233.0, 420.7]] + rng.uniform(-20, 20, (COUNT, 1, 2))
    (tmp_path / "images").mkdir()
    for row in range(COUNT):
        dots(613, 599, part[row, :3, :2]).save(tmp_path / f"images/{row}.jpg", quality=95)
    changes: dict[str, Any] = {"part": part, "openpose": None, "scale": np.full(COUNT, 6 * SIZE / 200)}
    bodies = load_bodies(write_spin(tmp_path, center=np.full((COUNT, 2), 300.0), **changes))
    return MeshDataset(bodies, tmp_path, SIZE, MOVED)


def whole(path: Path, ratio: float) -> ReducedImage:
    pixels = read_image(path)
    return ReducedImage(pixels, 1, (pixels.shape[0], pixels.shape[1]))


def centroid(crop: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The middle of the light within 6 pixels of a point."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    light = np.where((x - point[0]) ** 2 + (y - point[1]) ** 2 < 36, np.clip(crop - 60.0, 0, None), 0)
    return np.array([(light * x).sum(), (light * y).sum()]) / light.sum()


def test_points_and_pixels_of_a_reduced_crop(people: MeshDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = []

    def watched(path: Path, ratio: float) -> ReducedImage:
        image = read_reduced(path, ratio)
        factors.append(image.factor)
        return image

    apart, errors = [], []
    for row in range(COUNT):
        for seed in range(6):
            monkeypatch.setattr(mesh, "read_reduced", watched)
            reduced, again = (people.sample(row, np.random.default_rng(seed)) for _ in range(2))
            monkeypatch.setattr(mesh, "read_reduced", whole)
            full = people.sample(row, np.random.default_rng(seed))
            assert (reduced["image"] == again["image"]).all()
            assert (reduced["keypoints"] == full["keypoints"]).all()
            crops = [denormalise(sample["image"])[:, :, 0].astype(float) for sample in (reduced, full)]
            apart.append(np.abs(crops[0] - crops[1]).mean())
            seen = reduced["keypoints"][reduced["keypoints"][:, 2] > 0, :2]
            for point in (seen + 1) * SIZE / 2:
                if (np.abs(point - SIZE / 2) < SIZE / 2 - 7).all():
                    errors.append([centroid(crop, point) - point for crop in crops])
    assert set(factors) == {4} and len(errors) > 40
    distance = np.linalg.norm(np.array(errors), axis=2)
    assert np.mean(apart) < 1 and distance.max() < 0.3
    # In pixels of the crop, four times as large as those of the reduced image.
    assert np.abs(np.array(errors)[:, 0] - np.array(errors)[:, 1]).max() < 0.1
    assert np.abs(np.array(errors)[:, 0].mean(0)).max() < 0.03


def test_crops_of_real_photographs(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted((samples / "mpii").rglob("*.jpg"))
    sizes = np.array([read_image(path).shape[1::-1] for path in paths], float)
    names = np.array([str(path.relative_to(samples)) for path in paths])
    bodies = load_bodies(
        write_spin(
            tmp_path, imgname=names, center=sizes / 2, scale=0.9 * sizes[:, 1] / 200, gender=None,
            **dict.fromkeys(("part", "openpose", "S", "pose", "shape", "has_smpl")),
        )
    )  # fmt: skip
    data = MeshDataset(bodies, samples, 224)
    for row, size in enumerate(sizes):
        monkeypatch.setattr(mesh, "read_reduced", read_reduced)
        reduced = denormalise(data.sample(row, None)["image"]).astype(int)
        monkeypatch.setattr(mesh, "read_reduced", whole)
        full = denormalise(data.sample(row, None)["image"])
        assert np.abs(reduced - full).mean() < 3.5, names[row]
        assert (reduced != full).any() == (0.9 * size[1] / 224 >= 2)


def test_pytorchs_resizing_is_pillows(samples: Path) -> None:
    rng = np.random.default_rng(0)
    differences = []
    for path in sorted(samples.glob("imagenet/*/*/*.JPEG"))[::4]:
        pixels = read_image(path)
        left, top, right, bottom = random_crop_box(pixels.shape[1::-1], (0.08, 1.0), (3 / 4, 4 / 3), rng)
        crop = pixels[top:bottom, left:right]
        expected = Image.fromarray(crop).resize((224, 224), Image.Resampling.BICUBIC)
        differences.append(np.abs(resize(crop, 224).astype(int) - np.asarray(expected)))
    found = np.array(differences)
    assert found.mean() < 0.05 and (found > 0).mean() < 0.04 and (found > 1).mean() < 1e-3
