from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcformer.data.images import ImageError, denormalise, normalise, read_image


@pytest.fixture
def pixels() -> np.ndarray:
    ramp = np.linspace(0, 255, 24)
    rows, columns = np.meshgrid(ramp, np.linspace(255, 0, 32), indexing="ij")
    return np.stack([rows, columns, (rows + columns) / 2], -1).astype(np.uint8)  # (24, 32, 3)


def test_colour_jpeg_has_the_pixels_that_pillow_reads(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    image = read_image(path)
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8
    assert (image == np.asarray(Image.open(path).convert("RGB"))).all()
    assert np.abs(image.astype(int) - pixels).mean() < 4


def test_grayscale_jpeg_has_three_equal_channels(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.JPEG"
    Image.fromarray(pixels).convert("L").save(path, quality=95)
    image = read_image(path)
    assert image.shape == (24, 32, 3)
    assert (image == image[..., :1]).all()
    assert np.abs(image[..., 0].astype(int) - np.asarray(Image.fromarray(pixels).convert("L"))).max() < 10


def test_cmyk_jpeg_has_the_right_colours(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.JPEG"
    Image.fromarray(pixels).convert("CMYK").save(path, quality=95)
    assert np.abs(read_image(path).astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_png_named_jpeg(tmp_path: Path, pixels: np.ndarray, mode: str) -> None:
    path = tmp_path / "a.JPEG"
    converted = Image.fromarray(pixels).convert(mode)
    converted.save(path, format="PNG")
    assert (read_image(path) == np.asarray(converted.convert("RGB"))).all()


def test_exif_rotation_is_not_applied(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    assert read_image(path).shape == (24, 32, 3)


def test_stray_bytes_are_read_through(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    good = read_image(path)
    path.write_bytes(path.read_bytes() + b"trailing")
    assert (read_image(path) == good).all()


@pytest.mark.parametrize("damage", ["half", "empty", "text", "header"])
def test_an_undecodable_file_is_named(tmp_path: Path, pixels: np.ndarray, damage: str) -> None:
    path = tmp_path / "some image.jpg"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes({"half": data[: len(data) // 2], "empty": b"", "text": b"hello", "header": data[:2]}[damage])
    with pytest.raises(ImageError, match=r"some image\.jpg: cannot be decoded"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg: cannot be read"):
        read_image(tmp_path / "gone.jpg")


def test_normalising_and_back(pixels: np.ndarray) -> None:
    image = normalise(pixels)
    assert image.shape == (3, 24, 32) and image.dtype == np.float32
    expected = (pixels[5, 7] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(image[:, 5, 7], expected, atol=1e-5)
    assert (denormalise(image) == pixels).all()


def test_all_real_images_agree_with_pillow(samples: Path) -> None:
    paths = sorted(samples.glob("imagenet/*/*/*.JPEG")) + sorted(samples.glob("coco_wholebody/val2017/*.jpg"))
    assert len(paths) == 125
    modes = set()
    for path in paths:
        with Image.open(path) as image:
            modes.add(image.mode)
            assert (read_image(path) == np.asarray(image.convert("RGB"))).all(), path
    assert modes == {"RGB", "L"}
