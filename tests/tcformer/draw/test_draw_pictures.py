"""Pictures and their PNG bytes."""

import struct

import cv2
import numpy as np
import pytest

from tcformer import draw

PICTURE = np.random.default_rng(5).integers(0, 255, (64, 48, 3)).astype(np.uint8)


def chunks(png):
    """Names of the chunks of a PNG file."""
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append(png[at + 4 : at + 8])
        at += 12 + length
    return found


def test_same_pixels_give_the_same_bytes_without_metadata():
    png = draw.png_bytes(PICTURE)
    assert draw.png_bytes(PICTURE.copy()) == png
    assert set(chunks(png)) == {b"IHDR", b"IDAT", b"IEND"}


def test_png_keeps_every_pixel(tmp_path):
    draw.write_png(tmp_path / "new" / "picture.png", PICTURE)
    read = cv2.imread(str(tmp_path / "new" / "picture.png"))
    assert (read[..., ::-1] == PICTURE).all()


def test_enlarged_by_one_is_a_copy():
    same = draw.enlarge(PICTURE, 1)
    assert (same == PICTURE).all() and same is not PICTURE
    assert draw.enlarge(PICTURE, 3).shape == (192, 144, 3)


@pytest.mark.parametrize("wrong", [PICTURE.astype(float), PICTURE[..., 0], PICTURE[:0]])
def test_arrays_that_are_no_pictures_raise(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        draw.png_bytes(wrong)


def test_a_scale_below_one_raises():
    with pytest.raises(ValueError, match="scale is 0"):
        draw.enlarge(PICTURE, 0)
